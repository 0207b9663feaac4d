"""The losses of Zero-DCE: golden values and gradients, definitions, and images too small for them."""

import pytest
import torch

from llie.errors import UserError
from llie.losses import build_losses, create_loss

TERMS = {
    "tv": {"type": "IlluminationSmoothnessLoss", "pred": "curves", "weight": 200},
    "spatial": {"type": "SpatialConsistencyLoss", "weight": 1},
    "color": {"type": "ColourConstancyLoss", "weight": 5},
    "exposure": {"type": "ExposureControlLoss", "weight": 10},
}


@pytest.mark.parametrize("size", ["", "_nonsquare"])
def test_golden(golden, size):
    vector = golden(f"zero_dce_losses{size}")
    outputs = {"out": vector["enhanced"].double(), "curves": vector["curves"].double()}
    batch = {"lq": vector["low"].double()}
    for name, spec in TERMS.items():
        term = create_loss(spec | {"weight": 1})
        pred = outputs[term.pred].clone().requires_grad_()
        value = term(outputs | {term.pred: pred}, batch)
        value.backward()
        assert value.item() == pytest.approx(vector[name].item(), rel=1e-6)
        expected = vector[f"grad_{name}"]
        assert (pred.grad - expected).abs().max() <= 1e-5 * expected.abs().max()
    total, _ = build_losses({"losses": TERMS})(outputs, batch)
    assert total.item() == pytest.approx(vector["total"].item(), rel=1e-6)


def images(*size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_spatial_consistency_by_hand():
    """One row of two regions: each has three neighbours outside of the image, which count as 0."""
    pred, lq = torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 4, 8)
    pred[..., :4], pred[..., 4:] = 0.3, 0.1
    value = create_loss(TERMS["spatial"])(pred, lq)
    assert value.item() == pytest.approx((3 * 0.3**2 + 0.2**2 + 3 * 0.1**2 + 0.2**2) / 2)


def test_spatial_consistency_compares_with_the_input_unless_told_otherwise():
    out, lq, gt = (images(1, 3, 8, 8, seed=seed) for seed in range(3))
    term = create_loss({"type": "SpatialConsistencyLoss"})
    assert term({"out": out}, {"lq": lq, "gt": gt}) == term({"out": out}, {"lq": lq})
    assert term({"out": lq}, {"lq": lq, "gt": gt}) == 0
    to_gt = create_loss({"type": "SpatialConsistencyLoss", "target": "gt"})
    assert to_gt({"out": out}, {"lq": lq, "gt": out}) == 0


def test_colour_constancy_of_grey_has_a_gradient_of_zero():
    pred = torch.full((2, 3, 5, 5), 0.4, requires_grad=True)
    value = create_loss({"type": "ColourConstancyLoss"})({"out": pred}, {})
    value.backward()
    assert value == 0 and torch.equal(pred.grad, torch.zeros_like(pred))


def test_exposure_is_best_at_its_level():
    term = create_loss({"type": "ExposureControlLoss", "level": 0.5, "region": 4})
    assert term({"out": torch.full((1, 3, 9, 9), 0.5)}, {}) == 0
    assert term({"out": torch.full((1, 3, 9, 9), 0.2)}, {}).item() == pytest.approx(0.09)


@pytest.mark.parametrize("name", TERMS)
def test_gradients(name):
    pred, lq = images(2, 3, 17, 18).requires_grad_(), images(2, 3, 17, 18, seed=1)
    term = create_loss(TERMS[name])
    assert torch.autograd.gradcheck(lambda pred: term({term.pred: pred}, {"lq": lq}), pred)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("tv", (1, 9), "at least 2x2 pixels, not 9x1"),
        ("spatial", (9, 3), "at least 4x4 pixels, not 3x9"),
        ("exposure", (15, 20), "at least 16x16 pixels, not 20x15"),
    ],
)
def test_images_too_small_are_named(name, size, message):
    term = create_loss(TERMS[name])
    with pytest.raises(UserError, match=message):
        term({term.pred: torch.zeros(1, 3, *size)}, {"lq": torch.zeros(1, 3, *size)})


@pytest.mark.parametrize("loss", ["SpatialConsistencyLoss", "ExposureControlLoss"])
def test_a_region_has_a_size(loss):
    with pytest.raises(UserError, match="at least 1, not 0"):
        create_loss({"type": loss, "region": 0})
