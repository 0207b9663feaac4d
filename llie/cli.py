"""The `llie` command: one parser made of the verbs in `llie/commands/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import llie
from llie.commands import add_parsers
from llie.errors import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for a mistake of the user's, 1 when some images failed)."""
    parser = argparse.ArgumentParser(prog="llie", description="Low-light image enhancement: train, measure and use.")
    parser.add_argument("--version", action="version", version=f"llie {llie.__version__}")
    add_parsers(parser.add_subparsers(metavar="VERB", required=True))
    options = parser.parse_args(argv)
    return run_command(lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
