"""Colour profiles, made here: ICC version 2 profiles of three curves and a matrix, or of one grey curve."""

from __future__ import annotations

import struct

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# Chromaticities of red, green, blue and white.
PRIMARIES = {
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
    "Adobe RGB": ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), (0.3127, 0.3290)),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)),
}


def gamma(value: float) -> bytes:
    """A curve that is a power, in 1/256."""
    return struct.pack(">4sxxxxIH", b"curv", 1, round(value * 256))


def table(values: np.ndarray) -> bytes:
    """A curve given by its values at even steps."""
    levels = np.rint(np.asarray(values) * 65535).astype(">u2")
    return struct.pack(">4sxxxxI", b"curv", len(levels)) + levels.tobytes()


def parametric(kind: int, *numbers: float) -> bytes:
    """A parametric curve; the numbers are g, a, b, c, d, e, f as far as the kind has them."""
    return struct.pack(f">4sxxxxHxx{len(numbers)}i", b"para", kind, *(round(n * 65536) for n in numbers))


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb_profile(name: str, curve: bytes) -> bytes:
    """A profile with these primaries, adapted to D50 as ICC asks."""
    *corners, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in PRIMARIES[name])
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    columns = np.array(corners).T
    matrix = adaptation @ (columns * np.linalg.solve(columns, white))
    tags = {letter + b"XYZ": _xyz(column) for letter, column in zip((b"r", b"g", b"b"), matrix.T, strict=True)}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(curve: bytes) -> bytes:
    """A profile of one grey curve."""
    return _profile(b"GRAY", {b"kTRC": curve})


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return struct.pack(">4sxxxx3i", b"XYZ ", *(round(float(v) * 65536) for v in values))


def _profile(model: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": struct.pack(">4sxxxxI5s", b"desc", 5, b"test") + bytes(78), b"wtpt": _xyz(_D50), **tags}
    at, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI4s4s4s12x4s", at + len(body), 0x04200000, b"mntr", model, b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body
