"""Images from and to files: one reader for every format, 8 and 16 bit, that names the file when something is wrong."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from llie.errors import UserError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".npy"})

# What a file of each format begins with; None stands for four bytes of any value (a length).
_SIGNATURES: dict[str, tuple[tuple[bytes | None, ...], ...]] = {
    "PNG": ((b"\x89PNG\r\n\x1a\n",),),
    "JPEG": ((b"\xff\xd8\xff",),),
    "BMP": ((b"BM",),),
    "TIFF": ((b"II*\0",), (b"MM\0*",), (b"II+\0",), (b"MM\0+",)),
    "WebP": ((b"RIFF", None, b"WEBP"),),
    "NPY": ((b"\x93NUMPY",),),
    "HEIC": tuple((None, b"ftyp" + brand) for brand in (b"hei", b"hev", b"mif", b"msf")),
    "AVIF": ((None, b"ftypavi"),),
    "GIF": ((b"GIF8",),),
}
_FORMAT_OF_SUFFIX = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"},
    **{".webp": "WebP", ".npy": "NPY"},
}
_NOT_READ = frozenset({"HEIC", "AVIF", "GIF"})

# Our own errors name the file; OpenCV's lines beside them would not.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3), in the bit depth it is stored in: uint8, uint16 or float32 in [0, 1].

    Grey images become three equal channels, an alpha channel is dropped, EXIF orientation is applied. `.npy` files
    hold BGR in [0, 255], as the packed SID, SMID and SDSD sets do. The content decides the format, not the ending.

    Raises:
        UserError: the file is missing, truncated, damaged or no image; the message names it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from error
    return decode_image(data, path)


def decode_image(data: bytes, path: str | Path) -> np.ndarray:
    """The image in the bytes of a file, as `read_image` returns it; `path` is only for error messages."""
    found = image_format(data)
    if not data:
        raise UserError(f"{path} is empty; restore it from its source, or remove it")
    if found is None or found in _NOT_READ:
        what = f"is {found}, which is not read" if found else "is not an image"
        raise UserError(f"{path} {what}; convert it to PNG, or remove it")
    if found == "NPY":
        return _decode_npy(data, path)
    image = None
    if _is_complete(data, found):
        # Three channels, EXIF applied, depth kept: IMREAD_UNCHANGED would keep grey and alpha and ignore EXIF.
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            image = None
    if image is None:
        raise UserError(f"{path} is a damaged or truncated {found} file; restore it from its source, or remove it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_format(data: bytes) -> str | None:
    """The format that the first bytes of a file tell ("PNG", "HEIC", ...), or None for an unknown one."""
    for name, signatures in _SIGNATURES.items():
        for parts in signatures:
            at = 0
            for part in parts:
                if part is not None and data[at : at + len(part)] != part:
                    break
                at += 4 if part is None else len(part)
            else:
                return name
    return None


def mislabelled(path: Path) -> str | None:
    """What the file really is when its ending says otherwise ("HEIC" in `a.png`), else None."""
    try:
        with path.open("rb") as file:
            found = image_format(file.read(16))
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from error
    return None if found == _FORMAT_OF_SUFFIX.get(path.suffix.lower()) else found or "no known image format"


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3), uint8, uint16 or float in [0, 1] (rounded to 8 bit); the ending gives the format.

    The file appears whole or not at all; missing folders are made.

    Raises:
        UserError: the ending names no format, or the file cannot be written.
    """
    path = Path(path)
    if np.issubdtype(image.dtype, np.floating):
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    try:
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise UserError(f"cannot write {path}: {path.suffix or 'no ending'} is no image format; use .png") from error
    write_file(path, data.tobytes())


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all; missing folders are made.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # its folder may be what is wrong
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


def _decode_npy(data: bytes, path: str | Path) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is a damaged or truncated .npy file: {error}") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] == 2 or array.size == 0:
        raise UserError(f"{path} holds an array of shape {array.shape}; an image is (H, W), (H, W, 1) or (H, W, 3)")
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., 2::-1]
    if array.dtype not in (np.uint8, np.uint16):
        array = np.clip(array.astype(np.float32) / 255, 0, 1)
    return np.ascontiguousarray(array)


def _is_complete(data: bytes, found: str) -> bool:
    """Older OpenCV returns half an image for half a file; the end marker tells."""
    end = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(found, b"")
    return end in data
