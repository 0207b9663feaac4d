"""Smaller forms of an ONNX network: float16, and convolutions in 8-bit integers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from llie.data.demo import TRAIN, darkened
from llie.data.pairing import list_images
from llie.data.readers import read_image, to_tensor
from llie.export.extra import require
from llie.export.graph import IMAGE
from llie.export.quiet import quiet

if TYPE_CHECKING:
    import onnx

SIDE = 192  # of calibration images, in pixels
MOST_IMAGES = 32


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and results in float16; its input, output and controls stay float32."""
    convert = require("onnxruntime.transformers.float16").convert_float_to_float16
    with quiet():
        return convert(copy.deepcopy(model), keep_io_types=True, disable_shape_infer=True)


def to_int8(model: onnx.ModelProto, images: Sequence[Tensor]) -> onnx.ModelProto:
    """The model with its convolutions in 8-bit integers; their ranges are those that the images reach.

    Static quantisation: weights per channel, what flows between layers per tensor.
    """
    onnx, quantisation = require("onnx"), require("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "int8.onnx")
        quantisation.quantize_static(
            model,
            path,
            _Reader(images),
            per_channel=True,
            activation_type=quantisation.QuantType.QUInt8,
            weight_type=quantisation.QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        return onnx.load(path)


def calibration_images(folder: str | Path | None) -> list[Tensor]:
    """Photographs to find ranges with, as batches of one (1, 3, H, W) in [0, 1].

    Args:
        folder: of dark photographs, as the network will see them; None: those of scikit-image, darkened.

    Raises:
        UserError: the folder contains no images.
    """
    photographs: Iterable[np.ndarray]
    if folder is None:
        random = np.random.default_rng(0)
        photographs = (darkened(name, random) for name in TRAIN)
    else:
        photographs = map(read_image, list_images(folder)[:MOST_IMAGES])
    return [_reduced(to_tensor(photograph)[None]) for photograph in photographs]


def _reduced(image: Tensor) -> Tensor:
    """An image whose shorter side is at most `SIDE` pixels."""
    height, width = image.shape[-2:]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    small = cv2.resize(image[0].permute(1, 2, 0).numpy(), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)[None].contiguous()


class _Reader:
    """Hands images to the calibration, one after the other."""

    def __init__(self, images: Sequence[Tensor]):
        self.rest = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """The next image; None at the end."""
        image = next(self.rest, None)
        return None if image is None else {IMAGE: image.numpy()}
