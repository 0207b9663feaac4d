"""Enhances one upload: writes the result in full resolution, and two small pictures for the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from llie.archs import controls_of
from llie.data.formats import RAW_SUFFIXES
from llie.data.readers import read_bytes
from llie.errors import UserError
from llie.inference.compare import small_view
from llie.inference.photo import WRITTEN_SUFFIXES, decode_photo
from llie.inference.plan import SUFFIX
from llie.web.models import Devices


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Attributes:
        bytes: largest size of an upload.
        pixels: largest number of pixels of a photograph.
    """

    bytes: int = 64 * 2**20
    pixels: int = 50_000_000


class Taste(NamedTuple):
    """What a visitor chose.

    Attributes:
        model: name of the network.
        strength: 0 (no effect) to 1.
        denoise: 0 to 1; ignored by networks that have no such control.
        exposure: in EV.
    """

    model: str
    strength: float = 1.0
    denoise: float = 1.0
    exposure: float = 0.0


class Done(NamedTuple):
    """What the page shows.

    Attributes:
        before: a small picture of the photograph, at most 1600 pixels wide and high.
        after: a small picture of the result, of the same size.
        result: the file to download.
        notes: what was lost, such as transparency in a JPEG file.
    """

    before: Path
    after: Path
    result: Path
    notes: tuple[str, ...]


def enhance_upload(upload: Path, taste: Taste, devices: Devices, limits: Limits, folder: Path) -> Done:
    """Enhance an uploaded photograph.

    Args:
        upload: the file.
        taste: what the visitor chose.
        devices: run the network.
        limits: largest uploads.
        folder: for the results.

    Raises:
        UserError: the file is too large or not a photograph, or there is not enough memory.
    """
    size = upload.stat().st_size
    if size > limits.bytes:
        raise UserError(f"{upload.name} has {size} bytes, more than the limit of {limits.bytes} (--max-bytes)")
    photo = decode_photo(read_bytes(upload), upload.name, limits.pixels)
    with devices.use(taste.model) as enhancer:
        controls = {"denoise": taste.denoise} if "denoise" in controls_of(enhancer.network) else {}
        try:
            pixels = enhancer.adjusted(taste.strength, taste.exposure, **controls)(photo.pixels)
        except MemoryError:
            raise UserError(f"there is not enough memory for {upload.name}; choose a smaller photograph") from None
    own = upload.suffix.lower()
    ending = upload.suffix if own in WRITTEN_SUFFIXES else ".jpg" if own in RAW_SUFFIXES else ".png"
    result = folder / f"{upload.stem}{SUFFIX}{ending}"
    notes = (*photo.notes, *photo.save(pixels, result))
    before, after = folder / "before.png", folder / "after.png"
    Image.fromarray(small_view(photo.pixels)).save(before, compress_level=1)
    Image.fromarray(small_view(pixels)).save(after, compress_level=1)
    return Done(before, after, result, notes)
