"""Developing camera raw files (DNG, CR2, CR3, NEF, ARW ...) by LibRaw, through rawpy (the extra [photo])."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llie.data.formats import photo_package
from llie.errors import UserError


def develop(
    data: bytes, path: str | Path, check_size: Callable[[int, int], None] = lambda height, width: None
) -> tuple[np.ndarray, bytes]:
    """Develop a raw file: camera white balance, sRGB primaries and curve, unchanged exposure, upright.

    Args:
        data: the whole file.
        path: its name.
        check_size: called with height and width before unpacking; may raise an error.

    Returns:
        RGB (H, W, 3), uint16, and the JPEG preview in the file (empty if there is none), which may contain EXIF data.

    Raises:
        UserError: rawpy is not installed, the file is damaged, or LibRaw does not support the camera.
    """
    rawpy = photo_package("rawpy", path, "a camera raw file")
    try:
        with rawpy.imread(io.BytesIO(data)) as photo:
            check_size(photo.sizes.raw_height, photo.sizes.raw_width)
            pixels = photo.postprocess(
                use_camera_wb=True,
                output_color=rawpy.ColorSpace.sRGB,
                gamma=(2.4, 12.92),  # sRGB's curve, as LibRaw writes it
                no_auto_bright=True,
                output_bps=16,
            )
            preview = _preview(photo)
    except rawpy.LibRawError as error:
        raise UserError(
            f"{path} is a raw file that LibRaw {'.'.join(map(str, rawpy.libraw_version))} cannot read "
            f"({_text(error)}): it is damaged, or its camera is unknown; convert it to DNG or 16-bit TIFF"
        ) from error
    return pixels, preview


def _preview(photo: Any) -> bytes:
    """The JPEG preview in a raw file, or empty bytes."""
    try:
        preview = photo.extract_thumb()
    except Exception:
        return b""  # there is none, or in another format; only EXIF data is lost
    return preview.data if preview.format.name == "JPEG" else b""


def _text(error: Exception) -> str:
    """The message of an error; LibRaw's messages are bytes."""
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
