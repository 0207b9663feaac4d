"""`llie train`: the same as `python llie/train.py`."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb; it passes all arguments to `llie/train.py`, which starts each process with them."""
    parser = verbs.add_parser(
        "train", help="train a network from an option file (llie train -h)", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train."""
    from llie import train

    return train.main(options.arguments)
