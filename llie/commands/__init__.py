"""The verbs of the `llie` command: one module each, found by its presence here.

A verb is a module with `add_parser(verbs)`, which adds its parser and sets `run`, a function from the parsed options to
an exit code. It imports what it needs inside `run`: `llie --help` must not wait for torch. Modules whose name begins
with an underscore are shared by verbs. Only `llie/cli.py` calls them.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parsers(verbs: Verbs) -> None:
    """Add the parser of every verb, in alphabetical order."""
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if not name.startswith("_"):
            importlib.import_module(f"{__name__}.{name}").add_parser(verbs)
