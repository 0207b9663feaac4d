"""The selective scan in ONNX: a `Scan` whose body is one step of the recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llie.export.extra import require
from llie.ops.selective_scan import steps

if TYPE_CHECKING:
    import onnx

_DOMAIN, _NAME = "llie", "ScanSteps"  # a placeholder for the operator, which `write_scans` replaces


def translations() -> dict[Any, Callable[..., Any]]:
    """The translation table for `torch.onnx.export`: the operator becomes a node with a name of our own."""
    values, schema = require("onnxscript").values, require("onnx").defs.OpSchema
    inputs, result = ([schema.FormalParameter(name, "T") for name in names] for names in ("dxbca", "y"))
    known = schema(_NAME, _DOMAIN, 1, inputs=inputs, outputs=result, type_constraints=[("T", ["tensor(float)"], "")])
    return {steps.scan_steps._opoverload: values.Op(values.Opset(_DOMAIN, 1), _NAME, known)}


def write_scans(model: onnx.ModelProto) -> None:
    """Replace these nodes with `Scan`, in place."""
    helper = require("onnx").helper
    nodes: list[Any] = []
    for number, node in enumerate(model.graph.node):
        nodes += _scan(helper, node, f"scan{number}") if node.op_type == _NAME else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(used)


def _scan(helper: Any, node: Any, name: str) -> list[Any]:
    """The nodes that replace one; their names begin with `name`."""
    delta, x, b, c, a = node.input
    kind = 1  # float32

    def value(part: str, rank: int) -> Any:
        return helper.make_tensor_value_info(f"{name}_{part}", kind, [None] * rank)

    def make(operator: str, inputs: str, output: str) -> Any:
        named = [a if part == "A" else f"{name}_{part}" for part in inputs.split()]
        return helper.make_node(operator, named, [f"{name}_{output}"])

    body = helper.make_graph(
        [
            make("Unsqueeze", "delta last", "delta4"),
            make("Mul", "delta4 A", "power"),
            make("Exp", "power", "decay"),
            make("Mul", "decay state", "kept"),
            make("Unsqueeze", "x last", "x4"),
            make("Unsqueeze", "b third", "b4"),
            make("Mul", "x4 b4", "new"),
            make("Add", "kept new", "next"),
            make("Unsqueeze", "c last", "c4"),
            make("MatMul", "next c4", "y4"),
            make("Squeeze", "y4 last", "y"),
        ],
        name,
        [value("state", 4), value("delta", 3), value("x", 3), value("b", 3), value("c", 3)],
        [value("next", 4), value("y", 3)],
    )
    return [
        helper.make_node("Constant", [], [f"{name}_0"], value_int=0),
        helper.make_node("Constant", [], [f"{name}_third"], value_ints=[2]),
        helper.make_node("Constant", [], [f"{name}_last"], value_ints=[-1]),
        # The state before the first step: zeros of its shape, (batch, groups, channels, states).
        helper.make_node("Gather", [delta, f"{name}_0"], [f"{name}_one"], axis=0),
        helper.make_node("Unsqueeze", [f"{name}_one", f"{name}_last"], [f"{name}_one4"]),
        helper.make_node("Mul", [f"{name}_one4", a], [f"{name}_any"]),
        helper.make_node("Sub", [f"{name}_any", f"{name}_any"], [f"{name}_start"]),
        helper.make_node(
            "Scan",
            [f"{name}_start", delta, x, b, c],
            [f"{name}_end", node.output[0]],
            body=body,
            num_scan_inputs=4,
        ),
    ]
