"""Reading and writing photographs: sRGB for networks, and everything else in the file is kept."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL import TiffImagePlugin as TIFF  # the names of its tags

from llie.data.decoding import MAX_PIXELS, Decoded, decode
from llie.data.formats import HEIC_SUFFIXES, photo_package
from llie.data.readers import read_bytes, to_float, write_file
from llie.errors import UserError, suggest
from llie.inference.metadata import Metadata, described
from llie.inference.profiles import SRGB, ColourSpace

_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_TIFF = frozenset({".tif", ".tiff"})
WRITTEN_SUFFIXES = _JPEG | _TIFF | HEIC_SUFFIXES | {".png", ".webp", ".avif", ".bmp"}
_WITH_ALPHA = _TIFF | HEIC_SUFFIXES | {".png", ".webp", ".avif"}
_WITH_PROFILE = WRITTEN_SUFFIXES - {".bmp"}

_EXIF_LIMIT = 65000  # bytes; the limit of JPEG


@dataclass(frozen=True)
class Photo:
    """A photograph from a file.

    Attributes:
        pixels: (H, W, 3), upright, in sRGB: uint8, uint16 or float32 in [0, 1]; the input of a network.
        decoded: content of the file.
        space: colour space of the file's pixels, if it is not sRGB.
        notes: notes for the user about reading it.
    """

    pixels: np.ndarray
    decoded: Decoded
    space: ColourSpace | None
    notes: tuple[str, ...] = ()

    def save(self, result: np.ndarray, path: str | Path, quality: int = 95) -> tuple[str, ...]:
        """Write a result with this photograph's depth, colour profile, transparency and EXIF data, if the format can.

        Args:
            result: (H, W, 3), with the type of `pixels`.
            path: the file to write, atomically.
            quality: quality of JPEG, WebP, AVIF and HEIC, 1 to 100.

        Returns:
            Notes for the user about writing it.

        Raises:
            UserError: llie does not write the format of the ending, or the file cannot be written.
        """
        path = Path(path)
        content, notes = self.encode(result, path, quality)
        write_file(path, content)
        return notes

    def encode(self, result: np.ndarray, path: Path, quality: int = 95) -> tuple[bytes, tuple[str, ...]]:
        """The content of the file that `save` would write, and what a user should know about it.

        Args:
            result: see `save`.
            path: its ending gives the format; the rest of it is only for error messages.
            quality: see `save`.

        Raises:
            UserError: see `save`.
        """
        suffix = check_suffix(path)
        image, profile = self._in_space_of_source(result, suffix)
        image = _as_type(image, _type_for(suffix, self.decoded.pixels.dtype))
        notes = []
        if self.decoded.alpha is not None:
            if suffix in _WITH_ALPHA:
                image = np.dstack([image, _as_type(self.decoded.alpha, image.dtype)])
            elif (self.decoded.alpha < self.decoded.alpha.max()).any():
                notes.append(f"transparency was dropped, {suffix} has none (the format png keeps it)")
        try:
            height, width = image.shape[:2]
            metadata = described(self.decoded.exif, height, width, srgb=self.space is None or profile == SRGB)
            content = _encoded(image, suffix, quality, metadata, profile, path)
        except (OSError, ValueError, struct.error, cv2.error) as error:
            raise UserError(f"cannot write {path}: {error}") from error
        return content, tuple(notes)

    def _in_space_of_source(self, result: np.ndarray, suffix: str) -> tuple[np.ndarray, bytes | None]:
        if self.space is None:
            return result, self.decoded.profile if self._profile_fits(suffix) else None
        if self.space.model == b"RGB " and suffix in _WITH_PROFILE:
            try:
                return self.space.from_srgb(result), self.space.profile
            except ValueError:
                pass  # some profiles convert in one direction only, for instance those of scanners
        return result, SRGB if suffix in _WITH_PROFILE else None

    def _profile_fits(self, suffix: str) -> bool:
        profile = self.decoded.profile
        return suffix in _WITH_PROFILE and profile is not None and profile[16:20] == b"RGB "


def open_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photograph.

    Raises:
        UserError: the file is missing, damaged, larger than `max_pixels`, or not an image; the message names it.
    """
    return decode_photo(read_bytes(path), path, max_pixels)


def decode_photo(data: bytes, path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """The photograph in the bytes of a file, as `open_photo` reads it.

    Args:
        data: the whole file.
        path: its name, for error messages; an ending may say that it is camera raw.
        max_pixels: refuse larger pictures before they are unpacked.

    Raises:
        UserError: see `open_photo`; `TooManyPixels` where it is larger than `max_pixels`.
    """
    decoded = decode(data, path, max_pixels)
    notes = [f"only the first of {decoded.frames} pictures was used"] if decoded.frames > 1 else []
    pixels, space = decoded.pixels, None
    if decoded.profile:
        try:
            space = ColourSpace(decoded.profile)
            if space.is_srgb:
                space = None
            else:
                pixels = space.to_srgb(pixels)
        except ValueError:
            space = None
            notes.append("its colour profile is unusable; its colours were read as sRGB")
    return Photo(pixels, decoded, space, tuple(notes))


def check_suffix(path: Path) -> str:
    """The ending of a path, in lower case, if llie writes this format.

    Raises:
        UserError: it does not, or the format needs a missing package.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        endings = sorted(WRITTEN_SUFFIXES)
        raise UserError(
            f"{path}: {suffix or 'no ending'} is not an image format that llie writes ({' '.join(endings)})."
            + suggest(suffix, endings)
        )
    if suffix in HEIC_SUFFIXES:
        photo_package("pillow_heif", path, "a HEIC image")
    return suffix


def _type_for(suffix: str, stored: np.dtype) -> np.dtype:
    """The depth of the result: that of the source, if the format supports it."""
    if suffix in _TIFF or stored == np.uint8:
        return stored
    return np.dtype(np.uint16 if suffix == ".png" else np.uint8)


def _as_type(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if image.dtype == dtype:
        return image
    if dtype == np.float32:
        return to_float(image)
    scale = np.iinfo(dtype).max / (1 if image.dtype == np.float32 else np.iinfo(image.dtype).max)
    return np.rint(image * np.float32(scale)).astype(dtype)


def _encoded(
    image: np.ndarray, suffix: str, quality: int, metadata: Metadata, profile: bytes | None, path: Path
) -> bytes:
    """The content of a file."""
    if suffix in _TIFF:
        return _tiff(image, metadata, profile)
    exif = metadata.to_bytes(_EXIF_LIMIT)
    if suffix == ".png":
        return _png(image, exif, profile)
    if suffix in HEIC_SUFFIXES:
        photo_package("pillow_heif", path, "a HEIC image").register_heif_opener()
    options: dict[str, Any] = {}
    if suffix in _WITH_PROFILE:
        options = {"quality": quality, "exif": exif, "icc_profile": profile}
    content = io.BytesIO()
    kind = Image.registered_extensions()[suffix]
    Image.fromarray(image).save(content, kind, **{key: value for key, value in options.items() if value})
    return content.getvalue()


def _png(image: np.ndarray, exif: bytes, profile: bytes | None) -> bytes:
    """PNG by OpenCV, which is fast and writes 16 bits, plus metadata, which only its newest versions write."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    content = cv2.imencode(".png", bgr)[1].tobytes()
    chunks = b""
    if profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return content[:33] + chunks + content[33:]  # after the signature and the header


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _tiff(image: np.ndarray, metadata: Metadata, profile: bytes | None) -> bytes:
    """A TIFF file of any depth, compressed without loss; Pillow would lose depth, OpenCV and tifffile EXIF data."""
    height, width, channels = image.shape
    rows = min(height, max(1, 2**20 // (width * channels * image.itemsize)))
    whole = image.dtype != np.float32
    strips = []
    for start in range(0, height, rows):
        strip = image[start : start + rows]
        if whole:  # each sample as the difference from its left neighbour: the TIFF predictor 2
            strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
        strips.append(zlib.compress(strip.astype(image.dtype.newbyteorder("<")).tobytes()))
    sizes = tuple(map(len, strips))
    layout: dict[int, Any] = {
        TIFF.IMAGEWIDTH: width,
        TIFF.IMAGELENGTH: height,
        TIFF.BITSPERSAMPLE: (8 * image.itemsize,) * channels,
        TIFF.COMPRESSION: 8,
        TIFF.PHOTOMETRIC_INTERPRETATION: 2,
        TIFF.STRIPOFFSETS: tuple(itertools.accumulate(sizes, initial=0))[:-1],
        TIFF.SAMPLESPERPIXEL: channels,
        TIFF.ROWSPERSTRIP: rows,
        TIFF.STRIPBYTECOUNTS: sizes,
        TIFF.PREDICTOR: 2 if whole else 1,
        TIFF.SAMPLEFORMAT: (1 if whole else 3,) * channels,
    }
    if channels == 4:
        layout[TIFF.EXTRASAMPLES] = 2  # alpha; the colours are not multiplied by it
    if profile:
        layout[TIFF.ICCPROFILE] = profile
    return metadata.as_tiff(layout) + b"".join(strips)
