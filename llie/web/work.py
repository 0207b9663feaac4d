"""One photograph: from the uploaded file to a result of full resolution and two small pictures to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from llie.archs import controls_of
from llie.data.formats import RAW_SUFFIXES
from llie.data.readers import read_bytes, to_float
from llie.errors import UserError
from llie.inference.photo import WRITTEN_SUFFIXES, decode_photo
from llie.inference.plan import SUFFIX
from llie.web.models import Devices

_VIEWED = 1600  # pixels: the longer side of pictures on the page


@dataclass(frozen=True)
class Limits:
    """What the page takes on.

    Attributes:
        bytes: most bytes of an upload.
        pixels: most pixels of a photograph.
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
        before: a picture of the photograph, at most `_VIEWED` pixels wide and high.
        after: the same of the result.
        result: the file to download.
        notes: what the visitor should know.
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
        limits: what is refused.
        folder: for the results.

    Raises:
        UserError: the file is too large or no photograph, or the network cannot do it.
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
    Image.fromarray(_small(photo.pixels)).save(before, compress_level=1)
    Image.fromarray(_small(pixels)).save(after, compress_level=1)
    return Done(before, after, result, notes)


def _small(image: np.ndarray) -> np.ndarray:
    factor = _VIEWED / max(image.shape[:2])
    if factor < 1:
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.rint(to_float(image) * 255).astype(np.uint8)
