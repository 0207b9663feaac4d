"""EXIF data of a photograph, prepared for another file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, TiffTags
from PIL.TiffImagePlugin import STRIPOFFSETS as STRIP_OFFSETS
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825  # tags of the main directory that point to the others

_RESOLUTION = (0x011A, 0x011B, 0x0128)  # across, down, and their unit: none, inch or centimetre

# Tags of the main directory to keep: they describe the photograph. All others describe the storage of the source's
# pixels, and would damage the result. The orientation is already applied to the pixels.
_DESCRIPTIVE = (
    *(0x010D, 0x010E, 0x010F, 0x0110),  # name, description, make, model
    *_RESOLUTION,
    *(0x0131, 0x0132, 0x013B, 0x013C),  # software, date, artist, computer
    *(0x4746, 0x4749, 0x8298),  # rating, in stars and in percent; copyright
    *range(0x9C9B, 0x9CA0),  # title, comment, author, keywords, subject, as Windows writes them
)
_COLOUR_SPACE, _WIDTH, _HEIGHT, _INTEROPERABILITY, _MAKER_NOTE = 0xA001, 0xA002, 0xA003, 0xA005, 0x927C
_GPS_BYTES = (0, 5)  # version, and reference of the altitude: the only tags of the type BYTE
_HEADER = b"II*\0\x08\0\0\0"

Directory = Mapping[int, Any]


@dataclass(frozen=True)
class Metadata:
    """The three directories of EXIF data: tag -> value, as read by Pillow."""

    main: Directory
    exif: Directory
    gps: Directory

    @property
    def further(self) -> dict[int, Directory]:
        """The directories that the main one points to, without empty ones."""
        return {tag: values for tag, values in ((_EXIF_DIRECTORY, self.exif), (_GPS_DIRECTORY, self.gps)) if values}

    def to_bytes(self, limit: int | None = None) -> bytes:
        """EXIF data as stored in a JPEG file; empty if there are none.

        Args:
            limit: largest number of bytes; above it, the maker notes of the camera are left out.
        """
        if not self.main and not self.further:
            return b""
        content = b"Exif\0\0" + self.as_tiff({})
        if limit is not None and len(content) > limit:
            if _MAKER_NOTE not in self.exif:
                return b""
            return Metadata(self.main, _without(self.exif, _MAKER_NOTE), self.gps).to_bytes(limit)
        return content

    def as_tiff(self, layout: Directory) -> bytes:
        """The beginning of a TIFF file: header, the main directory, and the others.

        Args:
            layout: further tags of the main directory; strip offsets are relative to the end of the returned bytes.
        """
        entries = {**self.main, **layout}
        links = dict.fromkeys(self.further, 0)
        start = len(_HEADER) + len(_directory(entries, links).tobytes(len(_HEADER)))
        body = b""
        for tag, values in self.further.items():
            links[tag] = start + len(body)
            body += _directory(values, gps=tag == _GPS_DIRECTORY).tobytes(links[tag])
        if STRIP_OFFSETS in entries:  # Pillow counts them from the end of the main directory
            entries[STRIP_OFFSETS] = tuple(offset + len(body) for offset in entries[STRIP_OFFSETS])
        return _HEADER + _directory(entries, links).tobytes(len(_HEADER)) + body


def described(exif: Image.Exif, height: int, width: int, srgb: bool) -> Metadata:
    """The EXIF data of a source that is valid for an upright result of this size, without damaged tags.

    Args:
        exif: EXIF data of the source.
        height: height of the result.
        width: width of the result.
        srgb: whether the result is in sRGB, not in the colours of a profile.
    """
    main = {tag: exif[tag] for tag in _DESCRIPTIVE if tag in exif}
    if main.get(_RESOLUTION[2], 2) not in (1, 2, 3):
        main = {tag: value for tag, value in main.items() if tag not in _RESOLUTION}
    inner, gps = _inner(exif, _EXIF_DIRECTORY), _inner(exif, _GPS_DIRECTORY)
    inner = dict(_without(inner, _INTEROPERABILITY))
    if inner:
        inner |= {_WIDTH: width, _HEIGHT: height, _COLOUR_SPACE: 1 if srgb else 0xFFFF}
    return Metadata(_sound(main), _sound(inner), _sound(gps, gps=True))


def _directory(values: Directory, links: Mapping[int, int] | None = None, gps: bool = False) -> ImageFileDirectory_v2:
    """A directory of a TIFF file, little-endian; `links` are offsets of further directories."""
    entries = ImageFileDirectory_v2(_HEADER)
    for tag, value in values.items():
        if isinstance(value, str):
            # Pillow reads bytes as Latin-1 but writes ASCII; this restores the bytes, which may be UTF-8.
            entries.tagtype[tag], value = TiffTags.ASCII, value.encode("latin-1", "replace")
        elif isinstance(value, bytes) and (gps or tag not in _DESCRIPTIVE):
            entries.tagtype[tag] = TiffTags.BYTE if gps and tag in _GPS_BYTES else TiffTags.UNDEFINED
        entries[tag] = value
    for tag, offset in (links or {}).items():
        entries.tagtype[tag] = TiffTags.LONG
        entries[tag] = offset
    return entries


def _inner(exif: Image.Exif, tag: int) -> dict[int, Any]:
    try:
        return dict(exif.get_ifd(tag))
    except Exception:  # damaged EXIF data must not make a photograph unreadable
        return {}


def _sound(values: Directory, gps: bool = False) -> dict[int, Any]:
    """Only tags that can be written; cameras and programs write many malformed ones."""
    sound = {}
    for tag, value in values.items():
        try:
            _directory({tag: value}, gps=gps).tobytes(len(_HEADER))
        except Exception:
            continue
        sound[tag] = value
    return sound


def _without(values: Directory, tag: int) -> Directory:
    return {key: value for key, value in values.items() if key != tag}
