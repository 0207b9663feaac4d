"""Published weight files over the network: once for all processes, checked, and only where that is allowed."""

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
_failures: dict[str, str] = {}  # this process asks once for each file


class NotFetched(Exception):
    """Why a file could not be had."""


def fetch(url: str) -> Path:
    """Download a file into torch hub's cache, with a progress bar, unless it is there.

    Of several processes that ask at the same time, one downloads and the others wait for it.

    Args:
        url: the file's address; its name ends in the first digits of its SHA-256, `-dcbb9e9d.pth`, which are checked.

    Raises:
        NotFetched: `LLIE_OFFLINE` forbids it, there is no connection, the file is not there, or it is damaged.
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
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # torch hub's wrong hash is a RuntimeError
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        _failures[url] = f"it could not be downloaded: {reason}"
        raise NotFetched(_failures[url]) from None
    return path


@contextmanager
def _patience() -> Iterator[None]:
    """Torch hub waits for an answer without limit, but behind many a firewall none ever comes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
