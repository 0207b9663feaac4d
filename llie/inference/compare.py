"""Pictures side by side: before, enhanced, reference; one row per image, one labelled column per folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from llie.data.folders import files_below
from llie.data.formats import IMAGE_SUFFIXES
from llie.data.readers import read_image, to_float, write_image
from llie.errors import UserError

_GAP = 6
_LABEL_HEIGHT = 26
_VIEWED_SIDE = 1600  # pixels


def compare(columns: Mapping[str, str | Path], output: str | Path, rows: int = 8) -> Path:
    """Write one picture that shows the images of several folders (or files) side by side.

    Args:
        columns: label of the column -> folder of images, or a single image. Images of the same name are in one row;
            names that are not in every folder are left out.
        output: the picture to write.
        rows: largest number of rows; if there are more images, an evenly spaced selection.

    Raises:
        UserError: a folder is missing, or no image name is in all folders.
    """
    found = {label: _by_name(Path(source).expanduser()) for label, source in columns.items()}
    names = sorted(set.intersection(*(set(images) for images in found.values())))
    if not names:
        raise UserError(f"no image name is in all of {', '.join(str(source) for source in columns.values())}")
    names = [names[i] for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, rows)})]
    table = [[_as_uint8(read_image(images[name])) for images in found.values()] for name in names]
    write_image(output, sheet(table, list(columns)))
    return Path(output)


def sheet(table: list[list[np.ndarray]], labels: list[str]) -> np.ndarray:
    """Images (H, W, 3), uint8, in rows and labelled columns on white; a row has the height of its first image."""
    rows = [[_to_height(image, row[0].shape[0]) for image in row] for row in table]
    widths = [max(image.shape[1] for image in column) for column in zip(*rows, strict=True)]
    cells = [[_label(label) for label in labels], *rows]
    return np.vstack([np.hstack([_framed(*cell) for cell in zip(row, widths, strict=True)]) for row in cells])


def small_view(image: np.ndarray) -> np.ndarray:
    """A picture for the screen: (H, W, 3) of any type -> uint8, reduced to at most 1600 pixels a side."""
    factor = _VIEWED_SIDE / max(image.shape[:2])
    if factor < 1:
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _as_uint8(image)


def _label(text: str) -> np.ndarray:
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    band = np.full((_LABEL_HEIGHT, width, 3), 255, np.uint8)
    return cv2.putText(band, text, (0, _LABEL_HEIGHT - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)


def _by_name(source: Path) -> dict[str, Path]:
    """Images by their path in the folder, without ending; a single image has an empty name."""
    if source.is_file():
        return {"": source}
    if not source.is_dir():
        raise UserError(f"no such file or folder: {source}")
    images = (path for path in files_below(source) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.relative_to(source).with_suffix("").as_posix(): path for path in images}


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(to_float(image) * 255).astype(np.uint8)


def _to_height(image: np.ndarray, height: int) -> np.ndarray:
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _framed(image: np.ndarray, width: int) -> np.ndarray:
    """The image on a white area of this width, with a gap below and to the right; a wide label is cut off."""
    image = image[:, :width]
    return np.pad(image, ((0, _GAP), (0, width - image.shape[1] + _GAP), (0, 0)), constant_values=255)
