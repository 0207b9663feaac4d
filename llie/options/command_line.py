"""The command line of `llie/train.py` and `llie/test.py`: BasicSR's flags and a few more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def parse_arguments(phase: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        phase: "train" or "test".
        arguments: the command line without the name of the command; by default that of this process.

    Returns:
        Namespace with `opt`, `launcher`, `auto_resume`, `debug`, `force_yml` (list of overrides), `print`, `output`;
        for training also `seeds` and `jobs`.
    """
    parser = argparse.ArgumentParser(
        prog=f"llie {phase}", description=f"{phase.capitalize()} a network from an option file.", allow_abbrev=False
    )
    parser.add_argument(
        "-opt", "--opt", required=True, metavar="FILE", help=f"option file, for example options/{phase}/LOLv1.yml"
    )
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none",
        help="launcher of a distributed run; none: detect it (default: %(default)s)",
    )  # fmt: skip
    training = phase == "train"
    resume = "resume this run from its newest checkpoint, if there is one" if training else "without effect in a test"
    parser.add_argument("--auto_resume", action="store_true", help=resume)
    often = "; log, validate and save often" if training else ""
    parser.add_argument("--debug", action="store_true", help=f"name the run debug_...{often}")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", action="extend",
        help="override options, for example train.optim_g.lr=1e-4 or train:optim_g:lr=1e-4",
    )  # fmt: skip
    if training:
        parser.add_argument(
            "--seeds", type=int, metavar="N",
            help="train N times, with manual_seed and the numbers after it, and compare; also manual_seed: [1, 2, 3]",
        )  # fmt: skip
        parser.add_argument(
            "--jobs", type=int, default=1, metavar="N",
            help="number of seeds to train at the same time, which share the GPUs or cores (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument("--print", action="store_true", help="print the resolved options and exit")
    runs, folder = ("runs", "experiments") if training else ("results", "results")
    parser.add_argument("--output", metavar="FOLDER", help=f"folder of all {runs}, instead of {folder}/")
    # torch.distributed.launch passes these; the environment has the same values.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)
