"""A small ONNX file that nobody of ours wrote."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

IMAGE = (None, 3, None, None)


def brighten(path: Path, image=IMAGE, result=IMAGE, kind=TensorProto.FLOAT) -> Path:
    """Image times gain, 2 if none is given."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "gain"], ["out"])],
        "brighten",
        [helper.make_tensor_value_info("image", kind, image), helper.make_tensor_value_info("gain", kind, [])],
        [helper.make_tensor_value_info("out", kind, result)],
        [helper.make_tensor("gain", kind, [], [2.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path
