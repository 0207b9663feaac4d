"""What a server takes on: how large, how many at once, for how long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Refused(Exception):
    """A request that is not carried out; the client sees the status and the message.

    Args:
        status: of HTTP.
        message: what is wrong, and what helps.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def busy(status: int, message: str) -> Refused:
    """A refusal that a client should answer by trying again."""
    return Refused(status, message, {"Retry-After": "1"})


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        bytes: of a picture as it is sent.
        pixels: of a picture.
        queue: requests that are accepted and not answered yet.
        batch: most pictures of the same size that a network gets at once.
        seconds: for the upload, and again from there to the answer.
        grace: seconds from the signal to stop to the last answer.
    """

    bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    queue: int = 32
    batch: int = 4
    seconds: float = 60.0
    grace: float = 25.0


class Gate:
    """Counts the accepted requests; all its calls come from the event loop.

    Attributes:
        in_flight: how many are accepted and not answered yet.
        closed: whether the server is stopping, and accepts no more.
        abandoned: set when those that are in flight are not waited for any longer.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.in_flight = 0
        self.closed = False
        self.abandoned = asyncio.Event()

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Context of one accepted request.

        Raises:
            Refused: the server is stopping (503), or has as many requests as it takes (429).
        """
        if self.closed:
            raise busy(503, "the server is stopping; send the picture again")
        if self.in_flight >= self.limit:
            raise busy(429, f"{self.in_flight} requests are waiting already, as many as this server takes; try again")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
