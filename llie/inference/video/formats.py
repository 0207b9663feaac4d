"""Formats of video files, by their endings, and the check that PyAV is installed."""

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
    """Whether a file is a video, by its ending; a `.ts` file may be a TypeScript program, so its content decides."""
    suffix = path.suffix.lower()
    if suffix != ".ts":
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(_PACKET + 1)[::_PACKET] in (
                b"GG",
                b"",
            )  # reading an empty file gives a message
    except OSError:
        return True  # reading it gives the message


def container_of(path: Path) -> str:
    """FFmpeg's name of the format that a file's ending tells.

    Raises:
        UserError: llie does not write videos of this format.
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
