import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llie.ops.hvi import hvi_to_rgb, rgb_to_hvi
from tests.golden.compare import assert_near
from tests.needs import record_only

TRANSFORMS = ["hvi_transform", "hvi_transform_k0.5", "hvi_transform_cidnet"]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_golden_forward(golden, name):
    vector = golden(name)
    k = torch.tensor([vector.meta["density_k"]], requires_grad=True)
    rgb = vector["rgb"].requires_grad_()
    hvi = rgb_to_hvi(rgb, k)
    assert_near(hvi, vector["hvi"])
    assert_near(rgb_to_hvi(vector["edge_rgb"], k), vector["edge_hvi"])
    (hvi * vector["weight"]).sum().backward()
    assert_near(rgb.grad, vector["grad_rgb"])
    assert_near(k.grad, vector["grad_k"])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_golden_inverse(golden, name):
    vector = golden(name)
    k = vector.meta["density_k"]
    assert_near(hvi_to_rgb(vector["pred_hvi"], k), vector["pred_rgb"])
    assert_near(hvi_to_rgb(vector["hvi"], k), vector["roundtrip_rgb"])
    assert_near(hvi_to_rgb(vector["edge_hvi"], k), vector["edge_roundtrip_rgb"])


@pytest.mark.parametrize("name", ["hvi_transform", "hvi_transform_k0.5"])
@pytest.mark.parametrize("alphas", [(1.3, 1, 1), (1, 1, 0.8), (1, 1.3, 1), (1, 0.7, 1)])
def test_golden_controls(golden, name, alphas):
    vector = golden(name)
    expected = vector["pred_rgb_s{:g}_i{:g}_rgb{:g}".format(*alphas)]
    assert_near(hvi_to_rgb(vector["pred_hvi"], vector.meta["density_k"], *alphas), expected)


@pytest.mark.parametrize("name", ["hvi_transform", "hvi_transform_k0.5"])
def test_golden_maps_and_inverse_gradient(golden, name):
    vector = golden(name)
    k = torch.tensor([vector.meta["density_k"]], requires_grad=True)
    assert_near(hvi_to_rgb(vector["pred_hvi"], k, *vector["alpha_maps"].unbind(1)), vector["pred_rgb_maps"])
    hvi = vector["inv_hvi"].requires_grad_()
    (hvi_to_rgb(hvi, k) * vector["inv_weight"]).sum().backward()
    assert_near(hvi.grad, vector["inv_grad_hvi"])
    assert_near(k.grad, vector["inv_grad_k"])


def test_golden_cidnet_controls(golden):
    vector = golden("hvi_transform_cidnet")
    k = vector.meta["density_k"]
    for key, alphas in {
        "gated_1.3": (1.3, 1, 1),
        "gated2_0.84": (1, 1, 0.84),
        "gated_0.9_gated2_0.84": (0.9, 1, 0.84),
    }.items():
        assert_near(hvi_to_rgb(vector["pred_hvi"], k, *alphas), vector[f"pred_rgb_{key}"])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    arrays("float32", (1, 3, 2, 3), elements=st.floats(0, 1, width=32)),
    st.floats(0.1, 1.0),
)
def test_there_and_back(pixels, k):
    rgb = torch.from_numpy(pixels).double()  # float32 alone loses the hue of nearly black colours
    back = hvi_to_rgb(rgb_to_hvi(rgb, k), k)
    # Where the plane has shrunk to the size of the guards (1e-8) its colour is lost, in the official code as well.
    visible = (rgb.max(1, keepdim=True).values > 1e-3).expand_as(rgb)
    torch.testing.assert_close(back[visible], rgb[visible], atol=2e-3, rtol=0)
    assert back.min() >= 0 and back.max() <= 1


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    rgb = (0.1 + 0.8 * torch.rand(1, 3, 2, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    k = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rgb_to_hvi, (rgb, k))
    hvi = rgb_to_hvi(rgb, k).detach().mul(0.8).requires_grad_()
    maps = 0.8 + 0.2 * torch.rand(2, 1, 2, 3, generator=generator, dtype=torch.float64)
    alphas = [tensor.requires_grad_() for tensor in maps]
    assert torch.autograd.gradcheck(hvi_to_rgb, (hvi, k, *alphas))


def test_extreme_value_of_a_tie_goes_to_one_channel():
    rgb = torch.full((1, 3, 1, 1), 0.5, requires_grad=True)
    rgb_to_hvi(rgb, 0.2)[:, 2].sum().backward()
    assert sorted(rgb.grad.flatten().tolist()) == [0, 0, 1]


def test_black_has_a_finite_gradient():
    rgb = torch.zeros(1, 3, 2, 2, requires_grad=True)
    k = torch.tensor([0.2], requires_grad=True)
    hvi_to_rgb(rgb_to_hvi(rgb, k), k).sum().backward()
    assert rgb.grad.isfinite().all() and k.grad.isfinite().all()


def test_tiny_negative_angles_are_red_not_black():
    hvi = torch.tensor([0.5, -2e-8, 0.8]).reshape(1, 3, 1, 1)
    red, green, blue = hvi_to_rgb(hvi, 0.2).flatten().tolist()
    assert red == pytest.approx(0.8) and green == pytest.approx(blue, abs=1e-5) and green < 0.5


def test_any_amplification_of_intensity_is_finite():
    hvi = torch.tensor([0.1, 0.1, 1.0]).reshape(1, 3, 1, 1)
    for alpha_i in (1.9, 2.0, 2.5, 3.7):
        rgb = hvi_to_rgb(hvi, 0.2, alpha_i=alpha_i)
        assert rgb.isfinite().all() and rgb.max() == 1


@pytest.mark.parametrize("channel", range(3))
def test_nan_stays_visible(channel):
    colour = torch.full((1, 3, 1, 1), 0.5)
    colour[0, channel] = math.nan
    assert rgb_to_hvi(colour, 0.2).isnan().any()
    assert hvi_to_rgb(colour, 0.2).isnan().any()


def test_float32_inside_autocast_and_for_half_precision():
    rgb = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    exact = hvi_to_rgb(rgb_to_hvi(rgb, 0.2), 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hvi_to_rgb(rgb_to_hvi(rgb, 0.2), 0.2), exact)
        assert rgb_to_hvi(rgb.bfloat16(), 0.2).dtype == torch.float32
    assert rgb_to_hvi(rgb.double(), 0.2).dtype == torch.float64


@record_only
def test_exports_as_one_graph_for_any_size():
    class RoundTrip(torch.nn.Module):
        def forward(self, x):
            return hvi_to_rgb(rgb_to_hvi(x, 0.2), 0.2)

    size = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(RoundTrip(), (torch.rand(1, 3, 8, 12),), dynamic_shapes=(size,))
    x = torch.rand(1, 3, 5, 7)
    torch.testing.assert_close(program.module()(x), RoundTrip()(x))
