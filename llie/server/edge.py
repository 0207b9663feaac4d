"""The outermost layer: every request gets exactly one answer and is counted; tracebacks go to the log alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llie.server.limits import Limits
from llie.server.metrics import Metrics

LOG = logging.getLogger("llie.server")

CLIENT_LEFT = 499  # the number that nginx uses for clients that closed the connection; it is only counted


class Edge:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        metrics: counts the answers.
        paths: paths that are counted by name; all others count as "other", so that clients cannot add names.
        limits: bound what is read of an upload after an early answer to it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], limits: Limits):
        self._app, self._metrics, self._paths, self._limits = app, metrics, paths, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), CLIENT_LEFT
        # A client that sends `Expect: 100-continue` waits for permission before it sends its body.
        unread = b"expect" not in dict(scope["headers"])

        async def reading() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                if unread:
                    await self._read_on(reading)
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, reading, answering)
        except ClientDisconnect:
            pass
        except Exception:
            number = secrets.token_hex(4)
            LOG.exception("error %s in %s %s", number, scope["method"], scope["path"])
            if status == CLIENT_LEFT:  # nothing was sent yet
                text = f"the server failed at this request; its log has the reason under the number {number}"
                await JSONResponse({"error": text}, 500)(scope, reading, answering)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(path, status, time.monotonic() - start)

    async def _read_on(self, reading: Receive) -> None:
        """Read and discard the rest of an upload: many clients read the answer only when they have sent everything."""

        async def discard() -> None:
            total, more = 0, True
            while more and total <= self._limits.bytes:
                message = await reading()
                total += len(message.get("body", b""))
                more = message.get("more_body", False)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(discard(), self._limits.seconds)
