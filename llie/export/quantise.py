"""Smaller forms of an ONNX network: float16, and convolutions in 8-bit integers."""

from __future__ import annotations

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


def to_float16(model: onnx.ModelProto, precise: Sequence[str] = ()) -> onnx.ModelProto:
    """The model with convolutions and matrix products in float16; all other operations stay float32.

    Args:
        model: the model, which is not changed.
        precise: names of parts of the network that stay float32.
    """
    convert = require("onnxruntime.transformers.float16").convert_float_to_float16
    model = _folded(model)
    layers = {node.name for node in model.graph.node if _is_layer(model, node)} - _layers_of(model, precise)
    others = [node.name for node in model.graph.node if node.name not in layers]
    with quiet():
        return convert(model, keep_io_types=True, disable_shape_infer=True, node_block_list=others)


def to_int8(model: onnx.ModelProto, images: Sequence[Tensor], precise: Sequence[str] = ()) -> onnx.ModelProto:
    """The model with its convolutions in 8-bit integers, by static quantisation.

    Weights have a range per channel, activations one per tensor: the range that they reach on the images.

    Args:
        model: the model, which is not changed.
        images: batches (B, 3, H, W) in [0, 1], as dark as those that the network will be used on.
        precise: names of parts of the network that stay float32.
    """
    onnx, quantisation = require("onnx"), require("onnxruntime.quantization")
    model = _folded(model)
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
            nodes_to_exclude=sorted(_layers_of(model, precise)),
        )
        return onnx.load(path)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants folded: some networks compute their kernels from their weights."""
    onnx, runtime = require("onnx"), require("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "folded.onnx")
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3  # errors
        runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(path)
    for number, node in enumerate(folded.graph.node):
        node.name = f"{node.op_type}_{number}"  # the functions below refer to nodes by name
    return folded


def _is_layer(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution or matrix product with weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and not weights.isdisjoint(node.input)


def _layers_of(model: onnx.ModelProto, parts: Sequence[str]) -> set[str]:
    """Names of the nodes that have weights of these parts of the network."""
    prefixes = tuple(f"network.{part}." for part in parts)
    return {node.name for node in model.graph.node if any(given.startswith(prefixes) for given in node.input)}


def calibration_images(folder: str | Path | None) -> list[Tensor]:
    """Photographs to find ranges with, as batches of one (1, 3, H, W) in [0, 1].

    Args:
        folder: folder of dark photographs; None: those of scikit-image, darkened.

    Raises:
        UserError: the folder does not exist or contains no images.
    """
    photographs: Iterable[np.ndarray]
    if folder is None:
        random = np.random.default_rng(0)
        photographs = (darkened(name, random) for name in TRAIN)
    else:
        photographs = map(read_image, list_images(folder)[:MOST_IMAGES])
    return [_reduced(to_tensor(photograph)[None]) for photograph in photographs]


def _reduced(image: Tensor) -> Tensor:
    """The image (1, 3, H, W), reduced so that its shorter side has at most 192 pixels."""
    height, width = image.shape[-2:]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    small = cv2.resize(image[0].permute(1, 2, 0).numpy(), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)[None].contiguous()


class _Reader:
    """Gives the images to onnxruntime's calibration, one after the other."""

    def __init__(self, images: Sequence[Tensor]):
        self.rest = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """The next image; None at the end."""
        image = next(self.rest, None)
        return None if image is None else {IMAGE: image.numpy()}
