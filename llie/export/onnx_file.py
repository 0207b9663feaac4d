"""Translates a recorded graph to ONNX, and writes the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

from llie.errors import UserError
from llie.export import scan
from llie.export.extra import require
from llie.export.graph import IMAGE, RESULT, Graph
from llie.export.quiet import quiet

if TYPE_CHECKING:
    import onnx

OPSET = 18
_LARGEST = 2**31  # bytes; the format allows no larger file


def to_onnx(graph: Graph, recorded: ExportedProgram) -> onnx.ModelProto:
    """Translate a recorded graph to ONNX, with dynamic sizes and controls as optional inputs.

    An optional input is one with an initialiser of the same name: its default.

    Raises:
        UserError: an operator of the network does not exist in ONNX.
    """
    onnx, optimizer = require("onnx"), require("onnxscript.optimizer")
    names = [IMAGE, *graph.numbers]
    try:
        with quiet():
            program = torch.onnx.export(
                recorded,
                graph.example(),
                input_names=names,
                output_names=[RESULT],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=False,
                custom_translation_table=scan.translations(),
            )
            # Not the whole optimiser: it removes additions of 1e-8, which keep the HVI transform from dividing by zero.
            for step in (optimizer.inline, optimizer.fold_constants, optimizer.remove_unused_nodes):
                step(program.model)  # type: ignore[union-attr]
    except Exception as error:  # the exporter passes on errors of all kinds
        raise UserError(f"{type(graph.network).__name__} cannot be exported as ONNX: {_reason(error)}") from error
    model = program.model_proto  # type: ignore[union-attr]
    scan.write_scans(model)
    _name_sizes(model)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"  # quantisation refers to nodes by name
    for name, value in graph.numbers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    return model


def save(model: onnx.ModelProto, path: Path, facts: Mapping[str, str]) -> None:
    """Write the model, with facts as its metadata.

    Raises:
        UserError: the model is too large for one file, or the file cannot be written.
    """
    onnx = require("onnx")
    onnx.helper.set_model_props(model, dict(facts))
    if model.ByteSize() >= _LARGEST:
        raise UserError(f"{path}: the network has more than 2 GB of weights, which one ONNX file cannot hold")
    try:
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _name_sizes(model: onnx.ModelProto) -> None:
    """Name the dynamic dimensions of input and output: batch, height and width."""
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim, name in zip(value.type.tensor_type.shape.dim, ("batch", "", "height", "width"), strict=True):
            if name:
                dim.dim_param = name


def _reason(error: BaseException) -> str:
    """The message of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
