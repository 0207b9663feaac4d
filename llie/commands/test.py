"""`llie test`: the same as `python llie/test.py`."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb; it passes all arguments to `llie/test.py`, which starts each process with them."""
    parser = verbs.add_parser(
        "test", help="test a network from an option file (llie test -h)", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Test."""
    from llie import test

    return test.main(options.arguments)
