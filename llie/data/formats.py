"""Formats of image files: their first bytes, their endings, and the packages that some of them need."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from llie.errors import UserError

# Read without optional packages; data sets consist of these.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".npy"})
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on
PHOTO_SUFFIXES = IMAGE_SUFFIXES | HEIC_SUFFIXES | RAW_SUFFIXES | {".gif", ".jfif", ".jpe"}

# First bytes of a file of each format; None stands for any four bytes (a length).
_SIGNATURES: dict[str, tuple[tuple[bytes | None, ...], ...]] = {
    "PNG": ((b"\x89PNG\r\n\x1a\n",),),
    "JPEG": ((b"\xff\xd8\xff",),),
    "BMP": ((b"BM",),),
    # Canon's CR2 and Panasonic's, Olympus's and Fujifilm's files come first, because some of them are TIFF files, too.
    "camera raw": (
        *((order, None, b"CR\x02") for order in (b"II*\0", b"MM\0*")),
        *((magic,) for magic in (b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM")),
        (None, b"ftypcrx "),
    ),
    "TIFF": ((b"II*\0",), (b"MM\0*",), (b"II+\0",), (b"MM\0+",)),
    "WebP": ((b"RIFF", None, b"WEBP"),),
    "NPY": ((b"\x93NUMPY",),),
    "HEIC": tuple((None, b"ftyp" + brand) for brand in (b"hei", b"hev", b"mif", b"msf")),
    "AVIF": ((None, b"ftypavi"),),
    "GIF": ((b"GIF8",),),
}
_FORMAT_OF_SUFFIX = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"},
    **{".webp": "WebP", ".npy": "NPY", ".avif": "AVIF"},
}
_PACKAGE_OF = {"pillow_heif": "pillow-heif", "rawpy": "rawpy"}


def image_format(data: bytes) -> str | None:
    """The format according to the first bytes of a file ("PNG", "HEIC", ...), or None if unknown."""
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
    """The real format of a file with a wrong ending ("HEIC" for `a.png`), or None if the ending is right."""
    try:
        with path.open("rb") as file:
            found = image_format(file.read(16))
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from error
    return None if found == _FORMAT_OF_SUFFIX.get(path.suffix.lower()) else found or "no known image format"


def missing_package(suffix: str) -> str | None:
    """The missing package of the extra [photo] that files with this ending need, or None."""
    for module, suffixes in (("pillow_heif", HEIC_SUFFIXES), ("rawpy", RAW_SUFFIXES)):
        if suffix.lower() in suffixes and importlib.util.find_spec(module) is None:
            return _PACKAGE_OF[module]
    return None


def photo_package(module: str, path: str | Path, what: str) -> ModuleType:
    """Import a package of the extra [photo].

    Args:
        module: "rawpy" or "pillow_heif".
        path: the file that needs it, for the error message.
        what: kind of this file, for the error message.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{path} is {what}, for which llie needs {_PACKAGE_OF[module]}: pip install 'llie[photo]'"
        ) from error
