"""`llie options`: describe option files."""

from __future__ import annotations

import argparse
from pathlib import Path

from llie.commands import Verbs
from llie.commands._network import add_plugin_argument


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its actions."""
    actions = verbs.add_parser("options", help="describe option files for editors").add_subparsers(
        metavar="ACTION", required=True, title="actions", action=Verbs
    )
    schema = actions.add_parser(
        "schema", help="write a JSON Schema, with which editors complete and check option files"
    )
    schema.add_argument("-o", "--output", metavar="FILE", help="file to write (default: standard output)")
    add_plugin_argument(schema)
    schema.set_defaults(run=run_schema)


def run_schema(options: argparse.Namespace) -> int:
    """Write the schema."""
    import json

    from llie.engine.checkpoint import write_atomically
    from llie.options.json_schema import json_schema
    from llie.registry import load_plugins

    load_plugins(options.plugin)
    text = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    if options.output:
        write_atomically(Path(options.output), text.encode("utf-8"))
    else:
        print(text, end="")
    return 0
