"""Formats of video files: their endings, and the package that reads them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from llie.errors import UserError

# Endings of files that can be written -> FFmpeg's names of their formats.
CONTAINERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"},
}
VIDEO_SUFFIXES = frozenset(CONTAINERS) | {
    *(".3gp", ".3g2", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".vob", ".wmv"),
}
_PACKET = 188  # bytes of a packet of MPEG-TS, each of which begins with the same one


def is_video(path: Path) -> bool:
    """Whether a file's name says that it is a video; of `.ts`, which are programs, too, the content decides."""
    suffix = path.suffix.lower()
    if suffix != ".ts":
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(_PACKET + 1)[::_PACKET] in (b"GG", b"")  # an empty file: reading it will say so
    except OSError:
        return True  # reading it will say what is wrong


def container_of(path: Path) -> str:
    """FFmpeg's name of the format that a file's ending tells.

    Raises:
        UserError: videos of that kind are not written.
    """
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        known = " ".join(sorted(ending[1:] for ending in CONTAINERS))
        raise UserError(
            f"{path}: videos are written as {known}, not as {path.suffix or 'a file without ending'}"
        ) from None


def has_pyav() -> bool:
    """Whether the package that reads videos is installed."""
    return importlib.util.find_spec("av") is not None


def require_pyav(path: str | Path) -> None:
    """Raise a `UserError` that says how to install the package that reads videos, if it is absent.

    Args:
        path: the video, for the message.
    """
    if not has_pyav():
        raise UserError(f"{path} is a video, for which llie needs PyAV: pip install 'llie[video]'")
