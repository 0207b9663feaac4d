"""Decoding the bytes of an image file into pixels: every format, mode and depth, upright, as RGB."""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from llie.data import raw, tiff
from llie.data.formats import RAW_SUFFIXES, image_format, photo_package
from llie.errors import UserError

# Pillow's default limit: a small file that unpacks to more pixels is likely to be a decompression bomb.
MAX_PIXELS = 178_956_970

_PILLOW_FORMATS = {"JPEG": ("JPEG", "MPO"), "WebP": ("WEBP",)}
_ORIENTATION = 0x0112  # EXIF tag
_PHOTOMETRIC, _YCBCR = 262, 6  # TIFF tag, and one of its values
_BROKEN = "is a damaged or truncated {} file; restore it from its source, or remove it"
_limit_lock = threading.Lock()

# Messages of OpenCV and Pillow do not name the file; our own errors do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


class TooManyPixels(UserError):
    """A picture is larger than the limit; it was not unpacked.

    Attributes:
        height: height of the picture.
        width: width of the picture.
    """

    def __init__(self, path: str | Path, height: int, width: int, limit: int):
        super().__init__(
            f"{path} has {width}x{height} pixels, more than the limit of {limit}; if the file is what you expect, "
            f"raise the limit: --max-pixels {width * height}"
        )
        self.height, self.width = height, width


@dataclass(frozen=True)
class Decoded:
    """The content of an image file.

    Attributes:
        pixels: RGB, (H, W, 3), upright, in the stored depth: uint8, uint16 or float32 in [0, 1].
        alpha: (H, W), with the same type, or None.
        profile: ICC profile of the pixels, or None. CMYK and Lab are converted to sRGB and have none.
        exif: as stored, including the orientation, which is already applied.
        frames: number of pictures in the file; this is the first. 1 for photographs of phones, whose further pictures
            are previews, depth and gain maps.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: Image.Exif = field(default_factory=Image.Exif)
    frames: int = 1


def decode(data: bytes, path: str | Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode the bytes of an image file. The content determines the format, but the ending may mean camera raw.

    `.npy` files contain BGR in [0, 255], as in the packed SID, SMID and SDSD sets.

    Args:
        data: the whole file.
        path: its name.
        max_pixels: larger pictures are refused before they are unpacked.

    Raises:
        TooManyPixels: it is larger than `max_pixels`.
        UserError: the file is empty, truncated, damaged, not an image, or has an unsupported format; the message says
            so and names it.
    """
    found = image_format(data)
    if not data:
        raise UserError(f"{path} is empty; restore it from its source, or remove it")
    raw_name = Path(path).suffix.lower() in RAW_SUFFIXES
    if found == "camera raw" or (raw_name and found in (None, "TIFF")):
        return _raw(data, path, max_pixels)
    if found is None:
        raise UserError(f"{path} is not an image; convert it to PNG, or remove it")
    if found == "NPY":
        return Decoded(_npy(data, path))
    try:
        if found == "TIFF":
            return _tiff(data, path, max_pixels)
        if found == "HEIC":
            return _heic(data, path, max_pixels)
        return _picture(data, found, path, max_pixels)
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly any exception for damaged files
        raise UserError(f"{path} " + _BROKEN.format(found)) from error


def _raw(data: bytes, path: str | Path, max_pixels: int) -> Decoded:
    pixels, preview = raw.develop(data, path, lambda height, width: _check_size(height, width, path, max_pixels))
    return Decoded(pixels, exif=_exif_of(data if data[:2] in (b"II", b"MM") else preview))


def _tiff(data: bytes, path: str | Path, max_pixels: int) -> Decoded:
    layout = tiff.layout(data)
    if layout.camera_raw:
        return _raw(data, path, max_pixels)
    if layout.bits <= 8:
        return _from_pillow(data, ("TIFF",), path, max_pixels, layout.pages)
    page = layout.page
    _check_size(page.imagelength, page.imagewidth, path, max_pixels)
    return _split(tiff.decode_deep(data, page, path), page.tags.valueof(34675), _exif_of(data), layout.pages)


def _heic(data: bytes, path: str | Path, max_pixels: int) -> Decoded:
    heif = photo_package("pillow_heif", path, "a HEIC image").open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    _check_size(heif.size[1], heif.size[0], path, max_pixels)
    image = np.array(heif)  # already upright; HEIC ignores its EXIF orientation
    if image.dtype == np.uint16:  # 10 or 12 bits, shifted up; scale them so that white is 65535
        bits = heif.info["bit_depth"]
        image = np.rint(image * (65535 / ((2**bits - 1) << (16 - bits)))).astype(np.uint16)
    frames = len(heif) if data[8:12] in (b"hevc", b"hevx", b"msf1") else 1  # only sequences; others are albums of views
    return _split(image, heif.info.get("icc_profile"), _exif_of(heif.info.get("exif")), frames)


def _picture(data: bytes, found: str, path: str | Path, max_pixels: int) -> Decoded:
    """Decode by OpenCV (fast, 16 bits) PNG and JPEG files that it reads correctly, and by Pillow all others."""
    formats = _PILLOW_FORMATS.get(found, (found,))
    if found not in ("PNG", "JPEG"):
        return _from_pillow(data, formats, path, max_pixels)
    header = _open(data, formats, path, max_pixels)
    deep = found == "PNG" and data[24] == 16
    if header.mode == "CMYK" or (header.has_transparency_data and not deep):
        return _from_pillow(data, formats, path, max_pixels)
    # For half a file, older OpenCV returns half an image, so check the end marker.
    complete = _png_ends(data) if found == "PNG" else b"\xff\xd9" in data
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if complete else None
    if image is None:
        raise ValueError("OpenCV cannot read it")
    exif = _exif(header, data)
    image = tiff.upright(image, exif.get(_ORIENTATION, 1))
    if image.ndim == 3:
        image = cv2.cvtColor(
            np.ascontiguousarray(image), cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        )
    return _split(image, header.info.get("icc_profile"), exif, _frames(header))


def _png_ends(data: bytes) -> bool:
    """Whether the chunks of a PNG file lead to its end; for a damaged length, OpenCV would allocate up to 4 GB."""
    at = 8
    while data[at + 4 : at + 8] not in (b"IEND", b""):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return data[at + 4 : at + 8] == b"IEND"


def _from_pillow(
    data: bytes, formats: tuple[str, ...], path: str | Path, max_pixels: int, frames: int | None = None
) -> Decoded:
    image = _open(data, formats, path, max_pixels)
    count = _frames(image) if frames is None else frames
    profile = image.info.get("icc_profile")
    exif = _exif(image, data)
    _load(image)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("CMYK", "LAB"):
        image, profile = _to_srgb(image, profile), None
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("RGB")
    return _split(np.array(image), profile, exif, count)


def _load(image: Any) -> None:
    """Decode the pixels.

    Pillow before 13, which Python 3.10 has, takes the three bytes per pixel of uncompressed YCbCr for four of RGB.
    """
    plain = image.format == "TIFF" and image.mode == "RGB" and image.tag_v2.get(_PHOTOMETRIC) == _YCBCR
    plain = plain and all(tile.codec_name == "raw" and tile.args[0] == "RGBX" for tile in image.tile)
    if plain:
        image.tile = [tile._replace(args=("RGB", *tile.args[1:])) for tile in image.tile]
    image.load()
    if plain:
        image.paste(Image.frombytes("YCbCr", image.size, image.tobytes()).convert("RGB"))


def _split(image: np.ndarray, profile: bytes | None, exif: Image.Exif, frames: int) -> Decoded:
    """Split (H, W), or (H, W, C) with C from 1 to 4, into colours and alpha."""
    if image.size == 0:
        raise ValueError("it has no pixels")
    if image.ndim == 2:
        image = image[..., None]
    channels = image.shape[2]
    alpha = np.ascontiguousarray(image[..., -1]) if channels in (2, 4) else None
    pixels = image[..., :3] if channels >= 3 else np.repeat(image[..., :1], 3, axis=2)
    return Decoded(np.ascontiguousarray(pixels), alpha, profile, exif, frames)


def _open(data: bytes, formats: tuple[str, ...], path: str | Path, max_pixels: int) -> Image.Image:
    """Open by Pillow, which reads the header, with our limit of pixels instead of Pillow's."""
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    _check_size(image.height, image.width, path, max_pixels)
    return image


def _check_size(height: int, width: int, path: str | Path, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise TooManyPixels(path, height, width, max_pixels)


def _exif(image: Image.Image, data: bytes) -> Image.Exif:
    # Pillow would decode a whole PNG to search for EXIF data after its pixels, where there are at most 64 KiB.
    if image.format == "PNG" and "exif" not in image.info and b"eXIf" not in data[-(2**17) :]:
        return Image.Exif()
    try:
        return image.getexif()
    except Exception:
        return Image.Exif()  # damaged EXIF data must not make a photograph unreadable


def _exif_of(data: bytes | None) -> Image.Exif:
    """EXIF data from its bytes, or from a JPEG or TIFF file that Pillow may not decode; empty if unreadable."""
    content, exif = data or b"", Image.Exif()
    with suppress(Exception):  # a photograph without EXIF data is usable
        return Image.open(io.BytesIO(content), formats=("TIFF", "JPEG")).getexif()
    with suppress(Exception):
        exif.load(content)
        return exif
    return Image.Exif()


def _frames(image: Image.Image) -> int:
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert CMYK and Lab to RGB, by LittleCMS if there is a profile."""
    source: ImageCms.ImageCmsProfile | io.BytesIO | None = None
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif profile:
        source = io.BytesIO(profile)
    if source is not None:
        try:
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            converted = None  # the profile is damaged, but the pixels need not be
        if converted is not None:
            return converted
    return image.convert("RGB")


def _npy(data: bytes, path: str | Path) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is a damaged or truncated .npy file: {error}") from error
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] == 2 or array.size == 0:
        raise UserError(f"{path} contains an array of shape {array.shape}; an image is (H, W), (H, W, 1) or (H, W, 3)")
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., 2::-1]
    if array.dtype not in (np.uint8, np.uint16):
        array = np.clip(array.astype(np.float32) / 255, 0, 1)
    return np.ascontiguousarray(array)
