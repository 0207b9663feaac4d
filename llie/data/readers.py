"""Reading and writing image files: any format, 8 and 16 bit; error messages name the file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from llie.data.decoding import decode
from llie.errors import UserError


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3), in its stored depth: uint8, uint16 or float32 in [0, 1].

    Grey images become three equal channels, an alpha channel is dropped, EXIF orientation is applied. `.npy` files
    contain BGR in [0, 255], as in the packed SID, SMID and SDSD sets. The content decides the format, not the ending.

    Raises:
        UserError: the file is missing, truncated, damaged or not an image; the message names it.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | Path) -> bytes:
    """Read the content of an image file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from error


def decode_image(data: bytes, path: str | Path) -> np.ndarray:
    """Decode the bytes of a file, like `read_image`; `path` is only for error messages."""
    return decode(data, path).pixels


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3), uint8, uint16 or float in [0, 1] (rounded to 8 bits), in the format of the ending.

    The file is written atomically; missing folders are created.

    Raises:
        UserError: the ending is not an image format, or the file cannot be written.
    """
    path = Path(path)
    if np.issubdtype(image.dtype, np.floating):
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    try:
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise UserError(
            f"cannot write {path}: {path.suffix or 'no ending'} is not an image format; use .png"
        ) from error
    write_file(path, data.tobytes())


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically; missing folders are created.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be the problem
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def to_float(image: np.ndarray) -> np.ndarray:
    """The image as float32 in [0, 1]: uint8 divided by 255, uint16 by 65535."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32, copy=False)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """An image (H, W, 3) as a contiguous float32 tensor (3, H, W) in [0, 1]."""
    return torch.from_numpy(to_float(np.ascontiguousarray(image.transpose(2, 0, 1))))
