"""Records a network at one size of image as a graph of its operations, without computing them."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from llie.ops.parts import Part, recorded
from llie.strips.neighbours import convolution_and_relu
from llie.strips.sums import group_normalise, group_statistics

aten = torch.ops.aten


def trace(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> tuple[fx.GraphModule, list[Part]]:
    """Record the operations of `function` on a float32 image of this shape, (B, 3, H, W).

    Returns:
        The graph, without operations that write in place, and its marked parts (see `llie.ops.parts`).

    Raises:
        Exception: of any type; the function's code depends on the values of pixels.
    """
    with torch.inference_mode(False), torch.no_grad(), recorded() as parts:
        record = make_fx(
            functionalize(function, remove="mutations_and_views"), tracing_mode="fake", _allow_non_fake_inputs=True
        )
        module = record(torch.empty(shape, device=device))
    for node in module.graph.find_nodes(op="get_attr"):
        node.meta.setdefault("val", operator.attrgetter(node.target)(module))  # torch before 2.5 leaves it out
    _split_group_norms(module.graph)
    _join_relu(module.graph)
    module.graph.eliminate_dead_code()
    return module, parts


def _join_relu(graph: fx.Graph) -> None:
    """Make a convolution and the ReLU of its result one operation, if nothing else reads that."""
    for relu in graph.find_nodes(op="call_function", target=aten.relu.default):
        (convolution,) = relu.all_input_nodes
        if convolution.target is aten.convolution.default and len(convolution.users) == 1:
            with graph.inserting_before(relu):
                joined = graph.call_function(convolution_and_relu, convolution.args)
            joined.meta["val"] = relu.meta["val"]
            relu.replace_all_uses_with(joined)


def _split_group_norms(graph: fx.Graph) -> None:
    """Split group normalisation into two operations: the statistics of the whole image, and their use on each pixel."""
    for node in list(graph.nodes):
        if node.target is not aten.native_group_norm.default:
            continue
        x, weight, bias, *_, groups, eps = node.args
        with graph.inserting_before(node):
            statistics = graph.call_function(group_statistics, (x, groups, eps))
            normalised = graph.call_function(group_normalise, (x, statistics, weight, bias))
        statistics.meta["val"] = node.meta["val"][1:]
        normalised.meta["val"] = node.meta["val"][0]
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] == 0:
                user.replace_all_uses_with(normalised)
