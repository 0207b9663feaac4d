"""The `llie` command: one parser made of the verbs in `llie/commands/`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from llie import __version__, commands
from llie.errors import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (1: some images failed, 2: a user's mistake)."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; tests use it to check the commands in the guide."""
    parser = argparse.ArgumentParser(
        prog="llie",
        description="Low-light image enhancement: use, train and measure networks.",
        epilog="`llie VERB --help` explains a verb.",
    )
    parser.add_argument("--version", action="version", version=f"llie {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, title="verbs", action=commands.Verbs)
    for name in sorted(module.name for module in pkgutil.iter_modules(commands.__path__)):
        if not name.startswith("_"):
            importlib.import_module(f"{commands.__name__}.{name}").add_parser(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
