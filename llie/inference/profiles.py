"""Colour profiles (ICC): conversion from the colours of a photograph to sRGB, which networks need, and back.

Nearly all photographs have a profile with three curves and a matrix (Display P3, Adobe RGB, ProPhoto, Rec. 2020) or
with one grey curve. These are computed here in at least 16 bits, because LittleCMS in Pillow only supports 8, which
would give visible steps when a dark photograph is brightened. All others (tables, as for printers and scanners) use
LittleCMS. Colours outside sRGB are clipped.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms

Curve = Callable[[np.ndarray], np.ndarray]

# Linear sRGB to XYZ, Bradford-adapted to D50 as in profiles (IEC 61966-2-1 and ICC.1, annex E).
_SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_STEPS = 65536
_ROWS = 16  # rows converted at a time, so that they fit into the processor's cache
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class ColourSpace:
    """The colours that a profile describes.

    Args:
        profile: the bytes of an ICC profile.

    Raises:
        ValueError: it is not a profile of RGB or grey.
    """

    def __init__(self, profile: bytes):
        self.profile = profile
        self.model = profile[16:20]
        if self.model not in (b"RGB ", b"GRAY"):
            raise ValueError("not a profile of RGB or grey")
        try:
            self._lcms = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            self._curves = _curves(profile, self._lcms)
        except (ImageCms.PyCMSError, OSError, struct.error, IndexError) as error:
            raise ValueError(str(error)) from error

    @property
    def is_srgb(self) -> bool:
        """Whether the profile equals sRGB to within one level of 255."""
        if self.model != b"RGB ":
            return False
        levels = np.linspace(0, 255, 18).round().astype(np.uint8)
        probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
        return int(np.abs(self.to_srgb(probe) / 257 - probe).max()) <= 1

    def to_srgb(self, image: np.ndarray) -> np.ndarray:
        """Convert from this space to sRGB.

        Args:
            image: (H, W, 3), uint8, uint16 or float32 in [0, 1]; three equal channels if the profile is grey.

        Returns:
            The same shape; uint16 from integers, float32 from floats.

        Raises:
            ValueError: LittleCMS cannot convert from this profile.
        """
        if self._curves is None:
            return self._through_lcms(image, self._lcms, ImageCms.createProfile("sRGB"))
        if image.dtype == np.float32:
            return _convert(image, self._curves.curves, self._curves.matrix, [_srgb] * 3)
        levels = np.linspace(0, 1, int(np.iinfo(image.dtype).max) + 1, dtype=np.float32)
        decoders = [_lookup(curve(levels)) for curve in self._curves.curves]
        return _convert(image, decoders, self._curves.matrix, [_lookup_root(_srgb)] * 3)

    def from_srgb(self, image: np.ndarray) -> np.ndarray:
        """Convert from sRGB to this space, which must be RGB.

        Args:
            image: (H, W, 3), uint16 or float32, as `to_srgb` returns it.

        Returns:
            The same shape and type.

        Raises:
            ValueError: LittleCMS cannot convert to this profile.
        """
        if self._curves is None:
            return self._through_lcms(image, ImageCms.createProfile("sRGB"), self._lcms)
        inverse = np.linalg.inv(self._curves.matrix)
        encoders = [_inverse(curve) for curve in self._curves.curves]
        if image.dtype == np.float32:
            return _convert(image, [_linear] * 3, inverse, encoders)
        decode = _lookup(_linear(np.linspace(0, 1, 65536, dtype=np.float32)))
        return _convert(image, [decode] * 3, inverse, [_lookup_root(encode) for encode in encoders])

    def _through_lcms(self, image: np.ndarray, source: object, target: object) -> np.ndarray:
        """Convert in 8 bits; the result has the same type as from the exact conversion."""
        white = 1 if image.dtype == np.float32 else np.iinfo(image.dtype).max
        eight = Image.fromarray(np.rint(image * (255 / white)).astype(np.uint8))
        try:
            if self.model == b"GRAY":
                eight = eight.getchannel(0)
            converted = ImageCms.profileToProfile(eight, source, target, outputMode="RGB")  # type: ignore[arg-type]
        except ImageCms.PyCMSError as error:
            raise ValueError(str(error)) from error
        pixels = np.array(converted)
        return pixels.astype(np.float32) / 255 if white == 1 else pixels.astype(np.uint16) * 257


class _Curves(NamedTuple):
    """Three curves to linear light, and the matrix from it to linear sRGB."""

    curves: list[Curve]
    matrix: np.ndarray


def _curves(profile: bytes, lcms: ImageCms.ImageCmsProfile) -> _Curves | None:
    """The curves and the matrix of a profile, or None for one with tables."""
    count = struct.unpack_from(">I", profile, 128)[0]
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 200)))
    tags = {name: profile[start : start + size] for name, start, size in entries}
    if any(name.startswith((b"A2B", b"D2B")) for name in tags):
        return None
    if profile[16:20] == b"GRAY":
        return _Curves([_curve(tags[b"kTRC"])] * 3, np.eye(3, dtype=np.float32)) if b"kTRC" in tags else None
    if profile[20:24] != b"XYZ " or not {b"rTRC", b"gTRC", b"bTRC", b"rXYZ", b"gXYZ", b"bXYZ"} <= tags.keys():
        return None
    primaries = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    matrix = np.linalg.inv(_SRGB_TO_XYZ) @ (np.array(primaries).T / 65536)
    return _Curves([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")], matrix.astype(np.float32))


def _curve(tag: bytes) -> Curve:
    """A curve of the type curv or para (ICC.1:2022, 10.6 and 10.18), from [0, 1] to linear light."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return lambda x: x
        if count == 1:
            gamma = struct.unpack_from(">H", tag, 12)[0] / 256
            return lambda x: x**gamma
        values = np.frombuffer(tag, ">u2", count, 12).astype(np.float32) / 65535
        return lambda x: np.interp(x, np.linspace(0, 1, count), values).astype(np.float32)
    if tag[:4] != b"para":
        raise ValueError(f"a curve of the type {tag[:4]!r}")
    (kind,) = struct.unpack_from(">H", tag, 8)
    g, *rest = (value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12))
    # (a x + b)^g + e from d on, c x + f below; the shorter kinds omit some parameters.
    a, b, c, d, e, f = {
        0: lambda: (1, 0, 0, -1, 0, 0),
        1: lambda: (rest[0], rest[1], 0, -rest[1] / rest[0], 0, 0),
        2: lambda: (rest[0], rest[1], 0, -rest[1] / rest[0], rest[2], rest[2]),
        3: lambda: (*rest, 0, 0),
        4: lambda: tuple(rest),
    }[kind]()
    return lambda x: np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f).astype(np.float32)


def _srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _inverse(curve: Curve) -> Curve:
    """The inverse of a rising curve, tabulated with fine steps in the dark."""
    levels = np.linspace(0, 1, _STEPS, dtype=np.float32) ** 2
    values = np.maximum.accumulate(curve(levels))
    return lambda x: np.interp(x, values, levels).astype(np.float32)


def _lookup(table: np.ndarray) -> Curve:
    """A curve as a table over the levels of an integer type."""
    return lambda x: np.take(table, x)


def _lookup_root(curve: Curve) -> Curve:
    """A curve over [0, 1] as a table with equal steps of the square root; returns uint16."""
    table = np.rint(curve(np.linspace(0, 1, _STEPS, dtype=np.float32) ** 2) * 65535).astype(np.uint16)

    def encode(x: np.ndarray) -> np.ndarray:
        return np.take(table, (np.sqrt(x) * (_STEPS - 1) + 0.5).astype(np.uint16))

    return encode


def _convert(image: np.ndarray, decoders: Sequence[Curve], matrix: np.ndarray, encoders: Sequence[Curve]) -> np.ndarray:
    """Apply curves to linear light, a matrix, clipping, and inverse curves; a few rows at a time to save memory."""
    result = np.empty(image.shape, np.float32 if image.dtype == np.float32 else np.uint16)
    for start in range(0, len(image), _ROWS):
        rows = slice(start, start + _ROWS)
        channels = zip(decoders, cv2.split(image[rows]), strict=True)
        linear = cv2.transform(cv2.merge([decode(channel) for decode, channel in channels]), matrix.astype(np.float32))
        channels = zip(encoders, cv2.split(np.clip(linear, 0, 1)), strict=True)
        result[rows] = cv2.merge([encode(channel) for encode, channel in channels])
    return result
