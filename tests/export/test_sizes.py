"""Sizes in recorded graphs: expressions that compilers can simplify, and results as before."""

import pytest
import sympy
import torch
from torch import nn
from torch.nn import functional as F

from llie.export.capture import capture
from llie.export.graph import Graph
from llie.export.sizes import quickly_simplified
from llie.ops.padding import any_size
from tests.needs import record_only


class Scales(nn.Module):
    """Down and up again by these factors, in an image that is padded to a multiple of `multiple`."""

    def __init__(self, *factors, multiple=4, corners=False):
        super().__init__()
        self.factors, self.multiple, self.corners = factors, multiple, corners

    def forward(self, x):
        return any_size(self.multiple)(Scales.scaled)(self, x)

    def scaled(self, x):
        for factor in self.factors:
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=self.corners)
        return x


class Halves(nn.Module):
    """The image times the mean of its half size, which odd sizes round down."""

    def forward(self, x):
        return x * F.interpolate(x, scale_factor=0.5, mode="bilinear").mean()


def recorded_sizes(program):
    """All sizes of tensors in a graph, as text."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    return {str(size) for value in values if isinstance(value, torch.Tensor) for size in value.shape}


@record_only
@pytest.mark.parametrize("corners", [False, True])
def test_resizing_by_a_factor_leaves_whole_sizes(corners):
    network = Scales(0.5, 0.5, 2, 2.0, corners=corners)
    program = capture(Graph(network))
    sizes = recorded_sizes(program)
    assert not any("Float" in size or "Trunc" in size for size in sizes) and len(max(sizes, key=len)) < 20
    for shape in ((1, 3, 30, 21), (2, 3, 8, 12), (1, 3, 5, 9)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(program.module(check_guards=False)(x), network(x), atol=1e-6)


@record_only
def test_where_a_factor_does_not_divide_the_size_it_stays():
    program = capture(Graph(Halves()))
    x = torch.rand(1, 3, 31, 41, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(program.module(check_guards=False)(x), Halves()(x), atol=1e-7)
    by_size = x * F.interpolate(x, size=(15, 20), mode="bilinear").mean()
    assert not torch.allclose(program.module(check_guards=False)(x), by_size, atol=1e-6)


def test_addresses_are_simplified_as_before():
    i, j, h, w = sympy.symbols("i j h w", integer=True, nonnegative=True)
    address = i * h * w + j * (w + 2) + 3
    difference = address.subs(j, j + 1) - address
    assert difference != w + 2
    usual = sympy.simplify
    with quickly_simplified():
        assert sympy.simplify(difference) == w + 2
        assert sympy.simplify(address.subs(i, i + 1) - address) == h * w
    assert sympy.simplify is usual
