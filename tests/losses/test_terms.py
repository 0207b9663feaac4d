"""Losses in option files."""

import pytest
import torch

from llie.errors import UserError
from llie.losses import build_losses, create_loss
from llie.ops.hvi import rgb_to_hvi
from llie.registry import LOSS_REGISTRY


def images(seed, size=(12, 14)):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


A, B, C = images(0), images(1), images(2)


def l1(a, b):
    return (a - b).abs().mean()


class TestTerm:
    def test_plain_tensors_are_prediction_and_target(self):
        assert create_loss({"type": "L1Loss", "weight": 2.0})(A, B) == pytest.approx(2 * l1(A, B).item())

    def test_names_choose_output_and_target(self):
        term = create_loss({"type": "L1Loss", "pred": "coarse", "target": "lq"})
        assert term({"out": C, "coarse": A}, {"gt": C, "lq": B}) == l1(A, B)

    def test_target_may_be_another_output(self):
        term = create_loss({"type": "L1Loss", "pred": "coarse", "target": "out"})
        assert term({"out": B, "coarse": A}, {"gt": C}) == l1(A, B)

    def test_coarser_scale_is_compared_with_every_nth_pixel(self):
        spec = {"type": "L1Loss", "pred": "bands/1"}
        small = images(3, (6, 7))
        assert create_loss({**spec, "target_stride": 2})({"bands/1": small}, {"gt": B}) == l1(small, B[..., ::2, ::2])
        with pytest.raises(UserError, match="target_stride"):
            create_loss(spec)({"bands/1": small}, {"gt": B})

    def test_hvi_space_trains_the_exponent_through_both_images(self):
        k = torch.tensor([0.3], requires_grad=True)
        value = create_loss({"type": "MSELoss", "space": "hvi"})({"out": A, "k": k}, {"gt": B})
        expected = ((rgb_to_hvi(A, k) - rgb_to_hvi(B, k)) ** 2).mean()
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        torch.testing.assert_close(*(torch.autograd.grad(each, k)[0] for each in (value, expected)))

    def test_any_registered_class_is_a_term(self):
        @LOSS_REGISTRY.register(name="TestOnlyPair")
        class Pair(torch.nn.Module):
            """As BasicSR's perceptual losses: content and style, which may be missing."""

            def forward(self, pred, target):
                return l1(pred, target), None

        assert create_loss({"type": "TestOnlyPair", "weight": 3.0})(A, B) == 3 * l1(A, B)

    def test_reference_free_losses_need_no_target(self):
        assert create_loss({"type": "TVLoss"})({"out": A}, {}) > 0
        assert create_loss({"type": "GANLoss", "pred": "scores"})({"scores": A}, {}) > 0

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"type": "L1los"}, "L1Loss"),
            ({"weight": 1.0}, "type"),
            ({"type": "L1Loss", "wieght": 1.0}, "'weight'"),
            ({"type": "L1Loss", "reductoin": "sum"}, "'reduction'"),
            ({"type": "L1Loss", "reduction": "none"}, "mean, sum"),
            ({"type": "L1Loss", "space": "hsv"}, "rgb, hvi"),
            ({"type": "L1Loss", "weight": 1.0, "loss_weight": 1.0}, "either"),
            ({"type": "L1Loss", "target_stride": 0}, "target_stride: must be at least 1"),
            ({"type": "SSIMLoss", "window_size": 10}, "even"),
            ({"type": "SSIMLoss", "padding": "vaild"}, "'valid'"),
            ({"type": "GANLoss", "gan_type": "lsgn"}, "'lsgan'"),
            ({"type": "HVILoss", "gt_mean": "hsv"}, "hvi"),
        ],
    )
    def test_mistakes_are_named(self, spec, message):
        with pytest.raises(UserError, match=message):
            create_loss(spec)

    @pytest.mark.parametrize(
        ("spec", "outputs", "message"),
        [
            ({"type": "L1Loss", "pred": "bsae"}, {"out": A, "base": A}, "'base'"),
            ({"type": "L1Loss", "target": "ref"}, {"out": A}, "'ref'"),
            ({"type": "L1Loss", "space": "hvi"}, {"out": A}, "'k'"),
            ({"type": "HVILoss", "perceptual": 0}, {"out": A}, "'k'"),
            ({"type": "HVILoss", "perceptual": 0, "preds": {"base": 1.0}}, {"out": A, "k": A}, "'base'"),
        ],
    )
    def test_missing_outputs_are_named(self, spec, outputs, message):
        with pytest.raises(UserError, match=message):
            create_loss(spec)(outputs, {"gt": B})


class TestBuildLosses:
    def test_total_is_the_sum_of_the_logged_values(self):
        losses = build_losses({"losses": [{"type": "L1Loss"}, {"type": "SSIMLoss", "weight": 0.5}]})
        pred = A.clone().requires_grad_()
        total, values = losses(pred, B)
        total.backward()
        assert list(values) == ["L1Loss", "SSIMLoss"]
        assert not any(value.requires_grad for value in values.values())
        assert total.item() == pytest.approx(sum(values.values()).item())
        assert pred.grad.abs().sum() > 0

    def test_mapping_gives_names(self):
        _, values = build_losses({"losses": {"pixel": {"type": "L1Loss"}}})(A, B)
        assert list(values) == ["pixel"]

    def test_equal_names_are_numbered(self):
        two_scales = [{"type": "L1Loss"}, {"type": "L1Loss", "pred": "base"}, {"type": "L1Loss", "name": "third"}]
        _, values = build_losses({"losses": two_scales})({"out": A, "base": B}, {"gt": C})
        assert list(values) == ["L1Loss", "L1Loss_2", "third"]

    def test_basicsr_keys(self):
        train = {
            "pixel_opt": {"type": "CharbonnierLoss", "loss_weight": 2.0, "reduction": "sum"},
            "perceptual_opt": None,
            "gan_opt": {"type": "GANLoss", "gan_type": "lsgan", "loss_weight": 0.1},
        }
        total, values = build_losses(train)(A, B)
        assert list(values) == ["pixel"]
        assert total.item() == pytest.approx(2 * (A - B).abs().sum().item(), rel=1e-5)

    def test_no_loss_is_an_error(self):
        with pytest.raises(UserError, match=r"train\.losses"):
            build_losses({"losses": [], "pixel_opt": None})
        with pytest.raises(UserError, match=r"train\.losses"):
            build_losses({"losses": [{"type": "L1Loss", "weight": 0.0}]})

    def test_a_term_of_weight_0_is_not_even_built(self):
        absent = {"type": "PerceptualLoss", "layer_weights": {"relu1_1": 1.0}, "weights": "no such file"}
        losses = build_losses(
            {"losses": [absent | {"weight": 0}, {"type": "L1Loss"}], "perceptual_opt": absent | {"loss_weight": 0.0}}
        )
        assert list(losses(A, B)[1]) == ["L1Loss"]

    def test_errors_say_which_term(self):
        with pytest.raises(UserError, match=r"train\.losses\.1"):
            build_losses({"losses": [{"type": "L1Loss"}, {"type": "L1Loss", "eps": 1.0}]})
