"""Every network as an exported file: is it exported, how far is it from the network, how large, how fast.

    python benchmarks/export.py [NETWORK ...] [--folder FOLDER] [--sizes 256x256 600x400] [--compiled]

One line of the guide's table for each network, with one thread: largest difference over the sizes of verification, size
of the file, and how many times as fast as PyTorch onnxruntime is for one image (ratio of medians in one run), and with
--compiled `torch.compile`. Networks other than Dawn have random weights, which cost the same. Files stay in the folder,
and are used again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import llie
from llie.errors import UserError
from llie.export.graph import Graph
from llie.export.runtime import OnnxNetwork
from llie.export.verify import SIZES, compare, dark_images
from llie.export.write import export
from llie.ops.fusion import fuse
from llie.registry import ARCH_REGISTRY


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return llie.load().network if name == "Dawn" else fuse(llie.create_network(name).eval())


def file_of(name: str, network: nn.Module, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    if not path.is_file():
        export(network, path, report=lambda line: print(f"  {line}", flush=True))
    return path


def median(run: Callable[[], object], seconds: float) -> float:
    """Of repetitions that take so long together, three at least, after one that does not count."""
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 50):
        start = time.process_time()  # with one thread the time that it takes, however busy the machine is
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def row(name: str, folder: Path, sizes: list[tuple[int, int]], seconds: float, compiled: bool) -> str:
    network = network_of(name)
    try:
        path = file_of(name, network, folder)
    except UserError as error:
        return f"| {name} | no: {error} |"
    written, graph = OnnxNetwork(path, "cpu"), Graph(network)
    largest = max(compare(graph, written, image, {}).largest for image in dark_images(SIZES))
    ways: dict[str, Callable[[torch.Tensor], object]] = {"eager": network, "onnxruntime": written}
    if compiled:
        ways["compiled"] = torch.compile(network, dynamic=False)
    times = []
    with torch.inference_mode():
        for height, width in sizes:
            image = torch.rand(1, 3, height, width) * 0.3
            found = {way: median(lambda run=run, image=image: run(image), seconds) for way, run in ways.items()}
            eager = found.pop("eager")
            times.append(" / ".join(f"{eager / duration:.2f}x" for duration in found.values()))
    return f"| {name} | yes | {largest:.1e} | {path.stat().st_size / 1e6:.1f} MB | {' | '.join(times)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="registered names; all of them when left out")
    parser.add_argument("--folder", type=Path, default=Path("exported"), help="of the files")
    parser.add_argument("--sizes", nargs="+", default=["256x256", "600x400"], metavar="HxW")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring each (default: %(default)g)")
    parser.add_argument("--compiled", action="store_true", help="time torch.compile, too")
    words = parser.parse_args()
    torch.set_num_threads(1)
    words.folder.mkdir(parents=True, exist_ok=True)
    sizes = [(int(height), int(width)) for height, _, width in (size.partition("x") for size in words.sizes)]
    ways = "onnxruntime" + (" / compiled" if words.compiled else "")
    heads = ["network", "exported", "largest difference", "file", *(f"{size}, {ways}" for size in words.sizes)]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    for name in words.networks or ARCH_REGISTRY.keys():
        print(row(name, words.folder, sizes, words.seconds, words.compiled), flush=True)


if __name__ == "__main__":
    main()
