"""The outermost layer of the server: every request gets one answer, is counted, and learns nothing of our faults."""

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

CLIENT_LEFT = 499  # as nginx counts them; nobody sees this status


class Edge:
    """ASGI middleware around everything.

    Args:
        app: what answers.
        metrics: counts the answers.
        paths: the paths that are counted by name; a client cannot make up new ones.
        limits: what is read and thrown away of the upload of a client that gets an early answer.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], limits: Limits):
        self._app, self._metrics, self._paths, self._limits = app, metrics, paths, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), CLIENT_LEFT
        # A client that asks first (Expect: 100-continue) sends nothing before it has its answer.
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
            LOG.exception("fault %s in %s %s", number, scope["method"], scope["path"])
            if status == CLIENT_LEFT:  # nothing was sent yet
                text = f"the server failed at this request; its log says why (fault {number})"
                await JSONResponse({"error": text}, 500)(scope, reading, answering)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(path, status, time.monotonic() - start)

    async def _read_on(self, reading: Receive) -> None:
        """Read what a client still sends: many look for an answer only when they have sent everything."""

        async def discard() -> None:
            total, more = 0, True
            while more and total <= self._limits.bytes:
                message = await reading()
                total += len(message.get("body", b""))
                more = message.get("more_body", False)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(discard(), self._limits.seconds)
