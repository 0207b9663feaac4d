"""Image files of every kind, made here, and their content: Pillow's modes, deep TIFF files, camera raw."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms

ORIENTATION = 0x0112
ORIENTATIONS = range(1, 9)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")


def noise(dtype: Any = np.uint8, *shape: int) -> np.ndarray:
    """Random values over the whole range of a type; (7, 11, 3) unless told otherwise."""
    values = np.random.default_rng(5).random(shape or (7, 11, 3))
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def in_mode(mode: str, size: tuple[int, int] = (11, 7)) -> Image.Image:
    """A random picture in one of Pillow's modes."""
    width, height = size
    rgb = Image.fromarray(noise(np.uint8, height, width, 3))
    if mode in ("LA", "RGBA", "PA"):
        rgb.putalpha(Image.fromarray(noise(np.uint8, height, width)))
    if mode == "P":
        return rgb.quantize(200)
    if mode == "LAB":
        return ImageCms.profileToProfile(
            rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    return rgb.convert(mode)


def as_rgb(image: Image.Image) -> np.ndarray:
    """The colours of a picture as RGB, or RGBA if it has alpha, by Pillow's conversion."""
    if image.mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def encoded(image: Image.Image, kind: str, orientation: int = 1, **options: Any) -> bytes:
    """The bytes of a file with that orientation tag."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(content, kind, exif=exif, **options)
    return content.getvalue()


def tiff(array: np.ndarray, orientation: int = 1, **options: Any) -> bytes:
    """The bytes of a TIFF file of any depth and layout."""
    content = io.BytesIO()
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(content, array, metadata=None, extratags=tags, **options)
    return content.getvalue()


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array turned upright, by the EXIF standard's definition of its first row and column."""
    # Orientation -> where the stored 0th row and 0th column are seen (EXIF 2.3, table of tag 274).
    seen = {
        1: lambda a: a,  # top, left
        2: np.fliplr,  # top, right
        3: lambda a: np.rot90(a, 2),  # bottom, right
        4: np.flipud,  # bottom, left
        5: lambda a: np.rot90(np.fliplr(a)),  # left, top
        6: lambda a: np.rot90(a, -1),  # right, top
        7: lambda a: np.rot90(np.fliplr(a), -1),  # right, bottom
        8: np.rot90,  # left, bottom
    }
    return np.ascontiguousarray(seen[orientation](array))


def camera_raw(height: int = 64, width: int = 96, orientation: int = 1, dng: bool = True) -> bytes:
    """A raw file with the layout of cameras: a small preview first, the colour filter array (RGGB) in its SubIFD.

    The scene is neutral and twice as bright on the right; the white balance halves red and blue. Without `dng`, the
    file has no tag that says DNG.
    """
    sensor = np.full((height, width), 4000, np.uint16)
    sensor[:, width // 2 :] = 8000
    sensor[0::2, 1::2] //= 2  # green; red and blue have twice the signal
    sensor[1::2, 0::2] //= 2
    xyz_to_srgb = (
        np.rint(np.array([[3.2405, -1.5371, -0.4985], [-0.9693, 1.8760, 0.0416], [0.0556, -0.2040, 1.0572]]) * 10000)
        .astype(int)
        .ravel()
    )
    matrix = tuple(int(v) for value in xyz_to_srgb for v in (value, 10000))
    preview = np.full((12, 16, 3), 200, np.uint8)
    about = [
        (ORIENTATION, "H", 1, orientation, True),
        (271, "s", 0, "Maker", True),
        (272, "s", 0, "Model", True),
    ]
    if dng:
        about += [
            (50706, "B", 4, (1, 4, 0, 0), True),
            (50708, "s", 0, "Maker Model", True),
            (50721, "2i", 9, matrix, True),
            (50728, "2I", 3, (2, 1, 1, 1, 2, 1), True),
            (50778, "H", 1, 21, True),
        ]
    pattern = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True), (50717, "H", 1, 16000, True)]
    content = io.BytesIO()
    with tifffile.TiffWriter(content) as file:
        file.write(preview, photometric="rgb", subifds=1, subfiletype=1, extratags=about, metadata=None)
        file.write(sensor, photometric="cfa", extratags=pattern, metadata=None)
    return content.getvalue()
