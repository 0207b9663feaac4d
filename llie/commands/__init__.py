"""The verbs of the `llie` command: arguments go in, an exit code comes out. A new module here is a new verb.

A verb has `add_parser(verbs)`, which adds its parser and sets `run`, a function of the parsed arguments. It imports
what it needs inside `run`: `llie --help` must not wait for torch. Modules whose name begins with an underscore are
shared by verbs. Only `llie/cli.py` calls them.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
