"""Every network as exported files: are they written, how far are they from the network, how large, how fast.

    python benchmarks/export.py [NETWORK ...] [--folder FOLDER] [--sizes 256x256 600x400] [--compiled] [--threads N]

One line of the guide's table for each network: largest difference over the sizes of the check and tiny ones; size of
the .onnx file; and how many times as fast as PyTorch onnxruntime is for one image, and with --compiled the machine code
of AOTInductor (`llie export --compile`). Ratios are medians over rounds in which all of them take turns. Networks other
than Dawn have random weights, which cost the same. Files stay in the folder, and are used again; --write times nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import compare as time_in_turn
from torch import nn

import llie
from llie.errors import UserError
from llie.export.graph import Graph
from llie.export.program import ProgramNetwork
from llie.export.runtime import OnnxNetwork
from llie.export.verify import SIZES, compare, dark_images
from llie.export.write import export
from llie.inference import Enhancer
from llie.registry import ARCH_REGISTRY

SMALL = ((1, 1, 3), (1, 5, 7), (1, 12, 24))  # batch, height, width


def network_of(name: str) -> nn.Module:
    """As `llie enhance` runs it."""
    torch.manual_seed(0)
    return llie.load(device="cpu").network if name == "Dawn" else Enhancer(llie.create_network(name), "cpu").network


def file_of(name: str, network: nn.Module, folder: Path, ending: str) -> Path:
    path = folder / f"{name}{ending}"
    if not path.is_file():
        export(network, path, compile=ending == ".pt2", report=lambda line: print(f"  {line}", flush=True))
    return path


def ratios(ways: dict[str, Callable[[torch.Tensor], object]], height: int, width: int, seconds: float) -> list[str]:
    """How many times as fast as the first way the others are."""
    image = torch.rand(1, 3, height, width) * 0.3
    start = time.perf_counter()
    for run in ways.values():
        run(image)
    rounds = round(seconds / (time.perf_counter() - start))
    runs = {way: lambda run=run: run(image) for way, run in ways.items()}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter  # other load does not add to it
    found = time_in_turn(runs, max(3, min(rounds, 50)), clock)
    return [f"{ratio:.2f}x" for _, ratio in list(found.values())[1:]]


def row(name: str, words: argparse.Namespace) -> str:
    network = network_of(name)
    try:
        path = file_of(name, network, words.folder, ".onnx")
        compiled = file_of(name, network, words.folder, ".pt2") if words.compiled else None
    except UserError as error:
        return f"| {name} | no: {error} |"
    graph = Graph(network)
    ways: dict[str, nn.Module] = {"PyTorch": network, "onnxruntime": OnnxNetwork(path, "cpu")}
    if compiled:
        ways["AOTInductor"] = ProgramNetwork(compiled)
    largest = [
        max(compare(graph, written, image, {}).largest for image in dark_images(SIZES + SMALL))
        for written in list(ways.values())[1:]
    ]
    cells = [name, ", ".join(f"{difference:.1e}" for difference in largest), f"{path.stat().st_size / 1e6:.1f} MB"]
    with torch.inference_mode():
        for size in [] if words.write else words.sizes:
            height, width = map(int, size.split("x"))
            cells.append(", ".join(ratios(ways, height, width, words.seconds)))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="registered names; all of them when left out")
    parser.add_argument("--folder", type=Path, default=Path("exported"), help="of the files")
    parser.add_argument("--sizes", nargs="+", default=["256x256", "600x400"], metavar="HxW")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring each size (default: %(default)g)")
    parser.add_argument("--compiled", action="store_true", help="compile and time AOTInductor's files, too")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="only write the files")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    words.folder.mkdir(parents=True, exist_ok=True)
    ways = "onnxruntime" + (", AOTInductor" if words.compiled else "")
    heads = ["network", f"largest difference: {ways}", "file", *(f"{size}: {ways}" for size in words.sizes)]
    print(f"{torch.get_num_threads()} threads\n| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|", flush=True)
    for name in words.networks or ARCH_REGISTRY.keys():
        print(row(name, words), flush=True)


if __name__ == "__main__":
    main()
