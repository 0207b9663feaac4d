"""The verbs of the `llie` command: arguments go in, an exit code comes out. Each module is a verb.

A verb has a function `add_parser(verbs)`, which adds its parser and sets `run`, a function of the parsed arguments.
Slow imports are inside `run`, so that `llie --help` does not wait for torch. Modules with a leading underscore are
shared by verbs. Only `llie/cli.py` calls verbs.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
