"""Numbers on the command line that several verbs take."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def count_of(what: str) -> Callable[[str], int]:
    """The type of an argument that counts something, such as pixels: 1 or more, also written like 200e6."""

    def read(text: str) -> int:
        number = _number(text)
        if not 1 <= number < 1e18:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}, such as 4 or 200e6")
        return int(number)

    return read


def seconds(text: str) -> float:
    """The type of an argument that is a time."""
    number = _number(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, such as 30")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
