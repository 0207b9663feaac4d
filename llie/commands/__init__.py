"""The verbs of the `llie` command: arguments go in, an exit code comes out. Each module is a verb.

A verb has a function `add_parser(verbs)`, which adds its parser and sets `run`, a function of the parsed arguments.
Slow imports are inside `run`, so that `llie --help` does not wait for torch. Modules with a leading underscore are
shared by verbs. Only `llie/cli.py` calls verbs.
"""

from __future__ import annotations

import argparse
from typing import Any


class Verbs(argparse._SubParsersAction):
    """Sub-commands whose own help begins with the line that the list of sub-commands shows."""

    def add_parser(self, name: str, *, help: str, **arguments: Any) -> argparse.ArgumentParser:  # type: ignore[override]
        """Add a sub-command; `help` is a line without a full stop, an `epilog` is printed with its own line breaks."""
        arguments.setdefault("description", f"{help[0].upper()}{help[1:]}.")
        if "epilog" in arguments:
            arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().add_parser(name, help=help, **arguments)
