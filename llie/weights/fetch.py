"""Downloading published weight files: once for all processes, verified, and only where downloads are allowed."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock

_PATIENCE = 30.0  # seconds without an answer
_failures: dict[str, str] = {}  # each process tries each file only once


class NotFetched(Exception):
    """The reason why a file could not be downloaded."""


def fetch(url: str) -> Path:
    """Download a file into torch hub's cache, with a progress bar, unless it exists there.

    If several processes call it at the same time, one downloads and the others wait.

    Args:
        url: address of the file; its name ends in the first digits of its SHA-256 (`-dcbb9e9d.pth`), to verify it.

    Raises:
        NotFetched: `LLIE_OFFLINE` is set, there is no connection, or the file does not exist or is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if os.environ.get("LLIE_OFFLINE", "0") not in ("", "0"):
        raise NotFetched("LLIE_OFFLINE is set, so nothing is downloaded")
    if url in _failures:
        raise NotFetched(_failures[url])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"), _patience():
            if not path.is_file():
                torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # a wrong hash is a RuntimeError
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        _failures[url] = f"it could not be downloaded: {reason}"
        raise NotFetched(_failures[url]) from None
    return path


@contextmanager
def _patience() -> Iterator[None]:
    """Limit the time that torch hub waits for an answer; behind some firewalls there is none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
