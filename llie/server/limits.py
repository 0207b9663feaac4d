"""Limits of the server (sizes, number of requests, times), and how requests beyond them are refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Refused(Exception):
    """A request that is not carried out; the client gets the status and the message.

    Args:
        status: HTTP status code.
        message: what is wrong, and how to mend it.
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
    """Limits of the server.

    Attributes:
        bytes: largest size of an upload.
        pixels: largest number of pixels of a picture.
        queue: largest number of requests that are accepted and not answered yet.
        batch: largest number of pictures in a batch.
        seconds: time limit for an upload, and again for its answer.
        grace: time limit in seconds for the last answers after a stop signal.
    """

    bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    queue: int = 32
    batch: int = 4
    seconds: float = 60.0
    grace: float = 25.0


class Gate:
    """Counts the accepted requests. Only the event loop calls it.

    Args:
        limit: largest number of requests that are accepted and not answered yet.

    Attributes:
        in_flight: number of requests that are accepted and not answered yet.
        closed: whether the server is stopping; it then accepts no more requests.
        abandoned: set when the server stops waiting for the requests in flight.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.in_flight = 0
        self.closed = False
        self.abandoned = asyncio.Event()

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Context in which one request counts as accepted.

        Raises:
            Refused: the server is stopping (503), or the limit is reached (429).
        """
        if self.closed:
            raise busy(503, "the server is stopping; send the picture again")
        if self.in_flight >= self.limit:
            raise busy(429, f"{self.in_flight} requests are waiting, the limit of this server; try again later")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
