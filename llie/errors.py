"""Users' mistakes: one message that names the problem and the fix, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import io
import signal
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake in the user's input; its message must be enough to correct it."""


class Stopped(KeyboardInterrupt):
    """The user stopped the work (Ctrl-C, SIGTERM) and it ended cleanly; the message says what was finished.

    Args:
        message: the whole text to show to the user.
        number: number of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


def suggest(name: object, candidates: Iterable[object], limit: int = 3) -> str:
    """The end of an error message: `" Did you mean 'x'?"`, or an empty string if no candidate is similar."""
    options = [str(candidate) for candidate in candidates]
    folded = {option.lower(): option for option in reversed(options)}
    near = difflib.get_close_matches(str(name).lower(), folded, n=limit, cutoff=0.6)
    if not near:
        return ""
    return " Did you mean " + " or ".join(repr(folded[match]) for match in near) + "?"


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command and turn its outcome into an exit code: 2 for a `UserError`, 130 for Ctrl-C, 143 for SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters of file names that the console cannot print become escape codes instead of errors.
            stream.reconfigure(errors="backslashreplace")
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
