"""Serves the page until a signal comes; leaves no files behind, and sends no requests to other hosts."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llie.errors import UserError
from llie.web.models import Devices
from llie.web.sessions import Sessions
from llie.web.work import Limits


def serve_page(devices: Devices, limits: Limits, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then delete all uploads and results.

    Args:
        devices: run the networks.
        limits: largest uploads.
        host: address to listen on.
        port: port to listen on; 0: any free one.

    Raises:
        UserError: the page cannot be served there.
    """
    port = _free_port(host, port)
    with _signals() as stop, tempfile.TemporaryDirectory(prefix="llie-web-") as name:
        folder = Path(name).resolve()
        # gradio reads these variables when it is imported. Its other files go to Python's temporary folder.
        os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
        tempfile.tempdir = str(folder)
        from llie.web.page import THEME, build_page

        page = build_page(devices, limits, Sessions(folder))
        page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, theme=THEME,
            max_file_size=limits.bytes, footer_links=[], run_history=False, ssr_mode=False, pwa=False,
            mcp_server=False, enable_monitoring=False,
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        print(f"the page is at http://{shown}:{port} (Ctrl-C ends it)", flush=True)
        stop.wait()
        page.close(verbose=False)
        tempfile.tempdir = None


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Context in which Ctrl-C and SIGTERM only set an event, so that further signals do not interrupt the clean-up."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            return int(listening.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another (--host, --port)") from error
