import pytest
import torch
from torch import nn
from torch.nn import functional

from llie.ops.padding import any_size, at_size, pad_to_multiple


@pytest.mark.parametrize("size", [(5, 7), (8, 9), (16, 13)])
def test_equals_torch_reflection_where_that_is_defined(size):
    x = torch.rand(2, 3, *size)
    right, bottom = -size[1] % 8, -size[0] % 8
    assert torch.equal(pad_to_multiple(x, 8), functional.pad(x, (0, right, 0, bottom), mode="reflect"))


def test_image_smaller_than_the_padding_is_reflected_back_and_forth():
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert pad_to_multiple(row, 8)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert pad_to_multiple(torch.full((1, 3, 1, 1), 0.25), 4).eq(0.25).all()


def test_multiples_are_returned_untouched():
    x = torch.rand(1, 3, 8, 16)
    assert pad_to_multiple(x, 8) is x


class _Recorder(nn.Module):
    """Returns what it was given, in every kind of container that a network returns."""

    @any_size(4)
    def forward(self, x, mask=None, strength=1.0):
        assert x.shape[-1] % 4 == x.shape[-2] % 4 == 0
        return {"out": x, "mask": mask, "half": x[..., ::2, ::2], "pair": (x, strength), "k": torch.ones(1)}


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (4, 6), (8, 8)])
def test_outputs_have_the_input_size_and_maps_are_padded_with_the_image(size):
    x, mask = torch.rand(2, 3, *size), torch.randint(0, 9, (2, *size))
    outputs = _Recorder()(x, mask=mask, strength=0.5)
    assert torch.equal(outputs["out"], x)
    assert torch.equal(outputs["mask"], mask)
    assert torch.equal(outputs["pair"][0], x) and outputs["pair"][1] == 0.5
    assert outputs["half"].shape[-2:] == (-(-size[0] // 4) * 2, -(-size[1] // 4) * 2)
    assert outputs["k"].shape == (1,)


def test_resizing_there_and_back():
    seen = []

    @at_size([8, 12])
    def forward(self, x, mask=None):
        seen.append((x, mask))
        return {"out": x, "half": x[..., ::2, ::2]}

    x = torch.rand(1, 3, 4, 6)
    outputs = forward(None, x, mask=x[:, :1])
    twice = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    assert torch.equal(seen[0][0], twice) and torch.equal(seen[0][1], twice[:, :1])
    assert outputs["out"].shape == x.shape and outputs["half"].shape == (1, 3, 4, 6)
    forward(None, twice)
    assert seen[1][0] is twice


def test_gradient_reaches_every_pixel_once_per_use():
    x = torch.rand(1, 1, 1, 3, requires_grad=True)
    pad_to_multiple(x, 4).sum().backward()
    assert x.grad.flatten().tolist() == [4, 8, 4]  # columns 0 1 2 1, on four equal rows
