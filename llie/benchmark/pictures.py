"""Writes small pictures of inputs, results and references, for the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from llie.data.readers import write_file

LONGEST = 480  # pixels of the longer side
QUALITY = 85  # of JPEG
INPUT, REFERENCE = "input", "reference"  # subfolders beside those of the models


class Pictures:
    """The pictures of one data set.

    Args:
        folder: folder of the pictures; each model gets a subfolder, and so do inputs and references.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(self, number: int, model: str, batch: Mapping[str, Any], output: Tensor) -> None:
        """Write the pictures of one image.

        Args:
            number: of the image in its data set.
            model: name of the model.
            batch: a batch of one image, with the input `lq` and, if there is a reference, `gt`.
            output: the result, (1, 3, H, W) in [0, 1].
        """
        images = {model: output, INPUT: batch["lq"]}
        if batch.get("gt") is not None:
            images[REFERENCE] = batch["gt"]
        for kind, image in images.items():
            write_file(self.path(number, kind), small_jpeg(image[0]))

    def path(self, number: int, kind: str) -> Path:
        """The path of a picture: `kind` is "input", "reference" or the name of a model."""
        return self.folder / kind / f"{number:05}.jpg"


def small_jpeg(image: Tensor, longest: int = LONGEST) -> bytes:
    """A JPEG file of an image (3, H, W) in [0, 1], reduced so that no side has more than `longest` pixels."""
    pixels = np.rint(image.detach().float().clamp(0, 1).cpu().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1].tobytes()
