"""Serving the page until a signal, without a trace on the disk and without a request to other hosts."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

from llie.engine.signals import StopSignals
from llie.errors import UserError
from llie.web.models import Devices
from llie.web.sessions import Sessions
from llie.web.work import Limits

_LOOK = 0.2  # seconds between two looks at whether a signal arrived


def serve_page(devices: Devices, limits: Limits, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then delete everything that visitors sent and got.

    Args:
        devices: run the networks.
        limits: what is refused.
        host: address to listen on.
        port: likewise; 0 for any that is free.

    Raises:
        UserError: nothing can listen there.
    """
    port = _free_port(host, port)
    with StopSignals() as stop, tempfile.TemporaryDirectory(prefix="llie-web-") as name:
        folder = Path(name).resolve()
        # gradio reads these when it is imported. It keeps files in its folder, and writes uploads to Python's first.
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
        try:
            while not stop.number:
                time.sleep(_LOOK)
        finally:
            page.close(verbose=False)
            tempfile.tempdir = None


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            return int(listening.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another (--host, --port)") from error
