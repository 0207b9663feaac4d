"""TIFF files with more than 8 bits per sample, which Pillow cannot represent, and camera raw files in TIFF format."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from llie.errors import UserError

_RAW_PHOTOMETRIC = (32803, 34892)  # colour filter array, and linear raw
_ALPHA_KINDS = {1: "associated", 2: "unassociated"}
_GREY, _RGB, _WHITE_IS_ZERO = 1, 2, 0


class Layout(NamedTuple):
    """Facts about the first picture of a TIFF file; `page` is tifffile's."""

    page: Any
    bits: int
    pages: int
    camera_raw: bool


def layout(data: bytes) -> Layout:
    """Read the facts of a TIFF file without decoding it. For a damaged one, raises tifffile's exceptions."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our own errors name the file
    file = tifffile.TiffFile(io.BytesIO(data))
    pages: list[Any] = list(file.pages)
    page = pages[0]
    inner = [one for outer in pages for one in (outer, *(outer.pages or []))]
    raw = any(int(one.photometric or 0) in _RAW_PHOTOMETRIC for one in inner)
    bits = page.bitspersample
    count = sum(not one.is_reduced for one in pages)  # without previews
    return Layout(page, max(bits) if isinstance(bits, tuple) else bits, count, raw)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an array (H, W, ...) by its EXIF or TIFF orientation (1 to 8; others mean 1)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def decode_deep(data: bytes, page: Any, path: str | Path) -> np.ndarray:
    """Decode the first picture of a TIFF file with 16 or 32 bits per sample, upright.

    Returns:
        (H, W, C), C from 1 to 4 (grey or RGB, then alpha): uint16 as stored, otherwise float32.

    Raises:
        UserError: its kind is not supported; the message names it.
    """
    photometric, samples = int(page.photometric), page.samplesperpixel
    colours = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3}.get(photometric)
    kind = f"{page.bitspersample}-bit {page.photometric.name} of the type {page.dtype}"
    if colours is None or samples < colours or page.dtype is None or page.dtype.kind not in "uf":
        raise UserError(f"{path} is a TIFF file of a kind that llie cannot read ({kind}); export it as 16-bit RGB")
    image = _samples(data, page, path, kind)
    if image.dtype == np.uint16 and page.bitspersample < 16:
        image = np.rint(image * (65535 / (2**page.bitspersample - 1))).astype(np.uint16)
    elif image.dtype == np.uint32:
        image = (image / np.float64(2**page.bitspersample - 1)).astype(np.float32)
    elif image.dtype != np.uint16:
        image = _in_range(image.astype(np.float32), path)
    if photometric == _WHITE_IS_ZERO:
        image[..., :1] = (65535 if image.dtype == np.uint16 else 1) - image[..., :1]
    alpha = _ALPHA_KINDS.get(int(page.extrasamples[0])) if samples > colours and page.extrasamples else None
    if alpha == "associated":
        return _divided_by_alpha(image[..., : colours + 1])
    return image[..., : colours + (alpha is not None)]


def _samples(data: bytes, page: Any, path: str | Path, kind: str) -> np.ndarray:
    """The samples as stored, (H, W, C), upright."""
    samples = page.samplesperpixel
    if page.planarconfig == 1 and samples in (1, 3, 4) and page.bitspersample in (16, 32) and page.dtype.itemsize <= 4:
        # OpenCV supports every compression, and turns the picture upright.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if (
            image is not None
            and image.dtype == page.dtype
            and image.size == page.imagewidth * page.imagelength * samples
        ):
            image = image.reshape(*image.shape[:2], samples)
            return image if samples == 1 else image[..., [2, 1, 0, 3][:samples]]
    try:
        image = page.asarray(maxworkers=1)
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UserError(
                f"{path} is a TIFF file ({kind}) whose compression needs a further package: pip install imagecodecs"
            ) from error
        raise
    image = image.reshape(page.shaped[2:]) if page.planarconfig == 1 else image
    image = np.moveaxis(image, 0, -1) if page.planarconfig == 2 and samples > 1 else image
    image = image.reshape(page.imagelength, page.imagewidth, samples)
    return upright(image, int(page.tags.valueof(274, 1)))


def _in_range(image: np.ndarray, path: str | Path) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails
        raise UserError(
            f"{path} contains values from {low:.4g} to {high:.4g}, but a floating-point picture must be in 0 to 1: "
            "export it so, or as 16-bit RGB"
        )
    return np.clip(image, 0, 1)


def _divided_by_alpha(image: np.ndarray) -> np.ndarray:
    """Undo the multiplication of colours by alpha."""
    white = 65535 if image.dtype == np.uint16 else 1
    alpha = image[..., -1:].astype(np.float32) / white
    colours = np.clip(image[..., :-1] / np.maximum(alpha, 1e-6), 0, white)
    colours = np.rint(colours) if white > 1 else colours
    return np.concatenate([colours.astype(image.dtype), image[..., -1:]], axis=-1)
