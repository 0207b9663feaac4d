"""Listens on an address, and stops when all accepted requests are answered."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from types import FrameType

import uvicorn

from llie.errors import UserError
from llie.server.app import create_app
from llie.server.service import Service

_LAST_BYTES = 5  # seconds for sending the last answers to slow clients


def serve(service: Service, host: str, port: int, token: str | None = None) -> int:
    """Answer requests until SIGTERM or Ctrl-C, then finish the accepted ones.

    After the signal, new requests are refused (503). A second signal, or the end of `Limits.grace`, cuts off the rest.

    Args:
        service: carries out the requests.
        host: address to listen on.
        port: port to listen on; 0: any free one.
        token: what clients must send, or None.

    Returns:
        0 if every accepted request was answered, 1 if some were cut off.

    Raises:
        UserError: the server cannot listen there.
    """
    listening = _listen(host, port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        create_app(service, token), log_config=None, log_level="warning", http="h11", ws="none", lifespan="on",
        server_header=False, timeout_graceful_shutdown=_LAST_BYTES,
    )  # fmt: skip
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    address = f"[{host}]" if ":" in host else host
    print(f"listening on http://{address}:{listening.getsockname()[1]}", flush=True)
    server = _Server(config, service)
    server.run(sockets=[listening])
    if not server.cut_off:
        return 0
    print(f"stopped; {server.cut_off} accepted requests were not finished", file=sys.stderr, flush=True)
    os._exit(1)  # the process would wait for threads that are still working


class _Server(uvicorn.Server):
    """Uvicorn's server, but it goes on listening until no request is in flight."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service
        self._end: float | None = None
        self.cut_off = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGTERM and Ctrl-C."""
        first = self._end is None
        self._service.gate.closed = True
        self._end = time.monotonic() + (self._service.limits.grace if first else 0)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; true when it is time to end."""
        if await super().on_tick(counter):
            return True
        if self._end is None or (self.server_state.tasks and time.monotonic() < self._end):
            return False  # a task ends when its answer is sent
        self.cut_off = self._service.gate.in_flight
        self._service.gate.abandoned.set()
        return True


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another (--host, --port)") from error
    # Send answers at once. Otherwise, the last part waits until the client has acknowledged the first: 40 ms on Linux.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
