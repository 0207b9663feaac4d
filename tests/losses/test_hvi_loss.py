"""The loss of HVI-CIDNet and HVI-SMM: its short cuts do not change it, its options have their effect."""

import pytest
import torch

from llie.errors import UserError
from llie.losses import create_loss
from llie.losses.hvi import brightness_divergence
from llie.ops.hvi import rgb_to_hvi


def outputs_and_batch(factors, size=(16, 20)):
    """Two outputs whose brightness is that of the reference times each factor."""
    generator = torch.Generator().manual_seed(0)
    gt = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64) * 0.5
    k = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    noise = 1 + 0.1 * torch.rand(gt.shape, generator=generator, dtype=torch.float64)
    outputs = {
        name: (gt * noise * factor).requires_grad_() for name, factor in zip(("out", "base"), factors, strict=True)
    }
    return {**outputs, "k": k}, {"gt": gt}


def value_and_gradients(outputs, batch, **options):
    spec = {"type": "HVILoss", "perceptual": 0, "preds": {"out": 1.0, "base": 0.5}, **options}
    value = create_loss(spec).double()(outputs, batch)
    return value, torch.autograd.grad(value, list(outputs.values()))


class TestSkipping:
    @pytest.mark.parametrize("gt_mean", ["rgb", "hvi"])
    @pytest.mark.parametrize("factors", [(0.5, 0.4), (0.9, 0.5), (0.5, 1.0), (0.95, 0.9)], ids=str)
    def test_changes_neither_value_nor_gradient(self, gt_mean, factors):
        outputs, batch = outputs_and_batch(factors)
        quick, slow = (
            value_and_gradients(outputs, batch, gt_mean=gt_mean, skip_aligned=skip) for skip in (True, False)
        )
        torch.testing.assert_close(quick, slow, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(("factors", "predictions"), [((0.5, 0.4), 2), ((0.9, 0.5), 3), ((0.9, 0.95), 4)], ids=str)
    def test_leaves_out_what_has_no_weight(self, factors, predictions, monkeypatch):
        outputs, batch = outputs_and_batch(factors)
        term = create_loss({"type": "HVILoss", "perceptual": 0, "gt_mean": "hvi", "preds": {"out": 1.0, "base": 0.5}})
        counts, pair = [], term.loss.pair
        monkeypatch.setattr(term.loss, "pair", lambda rgb, *rest: counts.append(len(rgb)) or pair(rgb, *rest))
        term.double()(outputs, batch)
        assert counts == [predictions]

    def test_far_off_in_brightness_is_the_plain_loss(self):
        outputs, batch = outputs_and_batch((0.5, 0.4))
        aligned, plain = (value_and_gradients(outputs, batch, gt_mean=mode) for mode in ("hvi", "none"))
        torch.testing.assert_close(aligned, plain)


@pytest.mark.parametrize("gt_mean", ["none", "rgb", "hvi"])
def test_gradient(gt_mean):
    outputs, batch = outputs_and_batch((0.9, 0.85), size=(5, 6))
    names = list(outputs)

    def loss(*tensors):
        spec = {"type": "HVILoss", "perceptual": 0, "gt_mean": gt_mean, "preds": {"out": 1.0, "base": 0.5}}
        return create_loss(spec).double()(dict(zip(names, tensors, strict=True)), batch)

    assert torch.autograd.gradcheck(loss, tuple(outputs.values()), fast_mode=True, atol=1e-4)


def test_is_the_sum_of_its_terms():
    outputs, batch = outputs_and_batch((0.9, 0.8))
    specs = [("L1Loss", 1.0), ("SSIMLoss", 0.5), ("EdgeLoss", 50.0)]
    terms = [
        create_loss({"type": kind, "weight": weight * factor, "space": space}).double()(outputs, batch)
        for kind, weight in specs
        for space, factor in (("rgb", 1.0), ("hvi", 0.3))
    ]
    value = create_loss({"type": "HVILoss", "perceptual": 0, "hvi_weight": 0.3}).double()(outputs, batch)
    torch.testing.assert_close(value, sum(terms))


def test_weight_zero_leaves_a_term_out():
    outputs, batch = outputs_and_batch((0.9, 0.8))
    only = create_loss({"type": "HVILoss", "l1": 0, "ssim": 0, "edge": 2.0, "perceptual": 0, "hvi_weight": 0})
    expected = create_loss({"type": "EdgeLoss", "weight": 2.0})
    torch.testing.assert_close(only.double()(outputs, batch), expected.double()(outputs, batch))


def test_detached_target_trains_k_through_the_prediction_only():
    outputs, batch = outputs_and_batch((0.9, 0.8))
    options = {"l1": 1.0, "ssim": 0, "edge": 0, "perceptual": 0, "detach_target_k": True}
    value = create_loss({"type": "HVILoss", **options})(outputs, batch)
    k, gt = outputs["k"], batch["gt"]
    hvi = (rgb_to_hvi(outputs["out"], k) - rgb_to_hvi(gt, k).detach()).abs().mean()
    (found,), (expected,) = torch.autograd.grad(value, k), torch.autograd.grad(hvi, k)
    torch.testing.assert_close(found, expected)


def test_brightness_weight_of_the_published_ratios():
    ratio = torch.tensor([1.0, 1.05, 1.1, 1.2, 1.3, 1.34, 0.74])
    weight = brightness_divergence(torch.ones(7), ratio).clamp(0, 1)
    torch.testing.assert_close(weight, torch.tensor([0.0, 0.03, 0.12, 0.42, 0.85, 1.0, 1.0]), rtol=0, atol=0.01)


def test_black_prediction_has_finite_gradients():
    outputs, batch = outputs_and_batch((0.0, 0.0))
    value, gradients = value_and_gradients(outputs, batch, gt_mean="hvi")
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_all_weights_zero_is_an_error():
    with pytest.raises(UserError, match="weight"):
        create_loss({"type": "HVILoss", "l1": 0, "ssim": 0, "edge": 0, "perceptual": 0})
