"""Evaluate a trained network from an option file: `python llie/test.py -opt options/test/LOLv1.yml`.

Prints a table per data set and writes `results/<name>/<data set>.csv` and `.json`, and with `val.save_img` the
pictures. Exit codes: 0: finished; 2: a user's mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: Python put llie/ on the path, where its files would hide other modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor

from llie.data import build_dataset
from llie.engine import distributed
from llie.engine.allocator import keep_large_blocks
from llie.engine.run_folder import output_root
from llie.errors import UserError, run_command
from llie.evaluation import evaluate
from llie.models.base import create_network, result_of
from llie.ops.fusion import fuse
from llie.options import dump_options, load_options
from llie.options.command_line import parse_arguments
from llie.strips import InMemory


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, start as many processes as there are GPUs, and evaluate in each."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parse_arguments("test", argv)
    options = load_options(arguments.opt, arguments.force_yml, "test", debug=arguments.debug)
    if arguments.print:
        print(dump_options(options))
        return 0
    return distributed.launch(
        lambda device: test(options, device, root=arguments.output),
        Path(__file__).resolve(),
        argv,
        num_gpu=options["num_gpu"],
        backend=options["dist_params"]["backend"],
        launcher=arguments.launcher,
    )


def test(options: Mapping[str, Any], device: torch.device, root: str | None = None) -> int:
    """Evaluate the network on every `datasets.test*`.

    Args:
        options: resolved options.
        device: the device of this process.
        root: folder of all results; by default `path.results_root`, or results/ in the repository.

    Raises:
        UserError: no data set, no weights, or a network that returns invalid values.
    """
    keep_large_blocks()
    sections = {key: section for key, section in options["datasets"].items() if key.startswith("test")}
    if not sections:
        raise UserError("datasets: there is nothing to test; add datasets.test: {type: ..., dataroot_gt: ...}")
    network = InMemory(fuse(create_network(options, "g", trained=True).to(device).eval()))
    folder = output_root(root or options["path"]["results_root"], "results") / options["name"]
    val = options["val"]

    def predict(batch: dict[str, Any]) -> Tensor:
        return result_of(network(batch["lq"].to(device), **val["controls"])).cpu()

    for key, section in sections.items():
        name = section.get("name") or key
        pictures = folder / "images" / (name + (f"_{val['suffix']}" if val["suffix"] else ""))
        dataset: Any = build_dataset(section, key)
        report = evaluate(
            predict,
            dataset,
            val["metrics"] or {},
            val["protocols"],
            name=name,
            save_folder=pictures if val["save_img"] else None,
            results_folder=folder,
            include_input=True,
            average=val["average"],
        )
        if distributed.is_main():
            print(report.table())
            print(f"figures per image: {folder / name}.csv" + (f"; pictures: {pictures}" * val["save_img"]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
