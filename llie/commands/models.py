"""`llie models`: list the registered networks."""

from __future__ import annotations

import argparse

from llie.commands import Verbs
from llie.commands._network import add_plugin_argument


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("models", help="list the networks, with their presets and controls")
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    from llie.inference.catalogue import table
    from llie.registry import load_plugins

    load_plugins(options.plugin)
    print(table())
    return 0
