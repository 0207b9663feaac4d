"""Losses against their definitions, written here as plainly as possible."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from llie.errors import UserError
from llie.losses import create_loss
from llie.ops.filters import gaussian_window, separable_filter


def images(seed, size=(13, 16), dtype=torch.float64):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


FULL_REFERENCE = [
    {"type": "L1Loss"},
    {"type": "MSELoss"},
    {"type": "CharbonnierLoss", "eps": 1e-3},
    {"type": "PSNRLoss"},
    {"type": "PSNRLoss", "toY": True},
    {"type": "SSIMLoss"},
    {"type": "SSIMLoss", "padding": "valid"},
    {"type": "EdgeLoss"},
    {"type": "ColourfulnessLoss"},
    {"type": "ColourfulnessLoss", "window": 4},
]


@pytest.mark.parametrize("spec", FULL_REFERENCE, ids=str)
def test_gradient(spec):
    pred, target = images(0), images(1)
    assert gradcheck(lambda x: create_loss(spec)(x, target), pred.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("spec", FULL_REFERENCE, ids=str)
def test_one_distance_for_each_image(spec):
    loss = create_loss(spec).loss
    pred, target = torch.stack([images(0), images(1), images(2)]), images(3)
    distances = loss.distance(pred, target)
    assert distances.shape == (3, 2)
    torch.testing.assert_close(distances[1, 0], loss(pred[1, :1], target[:1]))
    torch.testing.assert_close(distances.mean(1)[2], loss(pred[2], target))


@pytest.mark.parametrize("spec", FULL_REFERENCE, ids=str)
def test_equal_images_cost_nothing(spec):
    least = -80 if spec["type"] == "PSNRLoss" else spec.get("eps", 0) ** 0.5
    assert create_loss({**spec, "weight": 1.0})(images(0), images(0)).item() == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (30, 5)])
@pytest.mark.parametrize("kind", ["SSIMLoss", "EdgeLoss", "TVLoss", "CharbonnierLoss", "ColourfulnessLoss"])
def test_any_size(kind, size):
    pred = images(0, size).requires_grad_()
    create_loss({"type": kind})(pred, images(1, size)).backward()
    assert pred.grad.isfinite().all()


def test_valid_ssim_needs_a_whole_window():
    with pytest.raises(UserError, match="11x11"):
        create_loss({"type": "SSIMLoss", "padding": "valid"})(images(0, (10, 30)), images(1, (10, 30)))


def test_charbonnier_has_eps_inside_the_root_and_a_gradient_at_zero():
    pred = torch.zeros(1, 1, 1, 2, requires_grad=True)
    value = create_loss({"type": "CharbonnierLoss", "eps": 1e-4})(pred, torch.zeros_like(pred))
    value.backward()
    assert value.item() == pytest.approx(1e-2)
    assert pred.grad.isfinite().all()


def test_psnr_loss_is_the_negative_mean_psnr():
    pred, target = images(0), images(1)
    psnrs = [-10 * ((a - b) ** 2).mean().log10() for a, b in zip(pred, target, strict=True)]
    loss = create_loss({"type": "PSNRLoss", "loss_weight": 0.5, "reduction": "mean"})
    torch.testing.assert_close(loss(pred, target), -0.5 * torch.stack(psnrs).mean(), rtol=1e-6, atol=0)
    with pytest.raises(UserError, match="mean"):
        create_loss({"type": "PSNRLoss", "reduction": "sum"})


def test_psnr_loss_on_luminance():
    pred, target = images(0, dtype=torch.float32), images(1, dtype=torch.float32)
    luma = [cv2.cvtColor(x[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) * (235 - 16) / 255 for x in (pred, target)]
    expected = 10 * torch.tensor(((luma[0] - luma[1]) ** 2).mean()).log10()
    loss = create_loss({"type": "PSNRLoss", "toY": True})
    torch.testing.assert_close(loss(pred[:1], target[:1]), expected, rtol=1e-4, atol=0)


def test_colourfulness_of_a_region_is_that_of_its_definition():
    image = images(0, (8, 12))[:1]
    values = create_loss({"type": "ColourfulnessLoss", "window": 8}).loss.colourfulness(image)
    red, green, blue = image[0, :, :, :8].numpy()
    rg, yb = red - green, (red + green) / 2 - blue
    assert values.shape == (1, 1, 1, 1)
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert values.item() == pytest.approx(expected, abs=1e-4)


def test_colourfulness_pulls_pale_results_towards_the_target_but_not_further():
    target = images(1)
    grey = target.mean(1, keepdim=True)
    loss = create_loss({"type": "ColourfulnessLoss"})
    costs = [loss(grey + strength * (target - grey), target).item() for strength in (0.0, 0.5, 1.0, 1.5)]
    assert costs[0] > costs[1] > costs[2] == pytest.approx(0, abs=1e-9) and costs[3] > 0


def test_colourfulness_of_single_pixels_or_channels_is_refused():
    with pytest.raises(UserError, match="window: 1 is too small"):
        create_loss({"type": "ColourfulnessLoss", "window": 1})
    with pytest.raises(UserError, match="this output has 1 channels"):
        create_loss({"type": "ColourfulnessLoss"})(images(0)[:, :1], images(1)[:, :1])


def test_sum_reduction():
    pred, target = images(0), images(1)
    assert create_loss({"type": "L1Loss", "reduction": "sum"})(pred, target).item() == pytest.approx(
        (pred - target).abs().sum().item()
    )


def test_separable_filter_is_the_square_one():
    x, taps = images(0), gaussian_window(5, 1.0)
    kernel = torch.outer(taps, taps).double().expand(3, 1, 5, 5)
    expected = F.conv2d(x, kernel, padding=2, groups=3)
    torch.testing.assert_close(separable_filter(x, taps, padding=2), expected)
    torch.testing.assert_close(separable_filter(x, taps, padding=2, stride=2), expected[..., ::2, ::2])


def test_ssim_keeps_its_precision_under_autocast():
    pred, target = images(0, dtype=torch.float32), images(1, dtype=torch.float32)
    loss = create_loss({"type": "SSIMLoss"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(pred, target)
    assert inside == loss(pred, target)


def test_total_variation():
    image = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]]).view(1, 1, 2, 3)
    vertical, horizontal = [2.0, 1.0, 1.0], [1.0, 2.0, 0.0, 0.0]
    mean = sum(vertical) / 3 + sum(horizontal) / 4
    assert create_loss({"type": "TVLoss"})(image, {}).item() == pytest.approx(mean)
    weighted = create_loss({"type": "WeightedTVLoss", "reduction": "sum"}).loss
    assert weighted(image).item() == sum(vertical) + sum(horizontal)
    left_column = torch.tensor([1.0, 0.0, 0.0]).expand(1, 1, 2, 3)
    assert weighted(image, left_column).item() == vertical[0] + horizontal[0] + horizontal[2]


class TestGAN:
    scores = torch.tensor([-2.0, 0.5, 3.0])

    def value(self, kind, *arguments, **options):
        return create_loss({"type": "GANLoss", "gan_type": kind, **options}).loss(self.scores, *arguments).item()

    @pytest.mark.parametrize("real", [True, False])
    def test_values(self, real):
        sign = 1 if real else -1
        mean = self.scores.mean().item()
        softplus = F.softplus(-sign * self.scores).mean().item()
        assert self.value("vanilla", real) == pytest.approx(softplus)
        assert self.value("wgan_softplus", real) == pytest.approx(softplus)
        assert self.value("lsgan", real) == pytest.approx(((self.scores - float(real)) ** 2).mean().item())
        assert self.value("wgan", real) == pytest.approx(-sign * mean)
        assert self.value("hinge", real) == pytest.approx(-sign * mean)
        margin = (1 - sign * self.scores).clamp(min=0).mean().item()
        assert self.value("hinge", real, True) == pytest.approx(margin)

    def test_labels(self):
        smooth = self.value("lsgan", True, real_label_val=0.9)
        assert smooth == pytest.approx(((self.scores - 0.9) ** 2).mean().item())

    def test_soft_labels_are_drawn_for_each_score_of_the_discriminator(self):
        soft = {"real_label_val": [0.7, 1.2], "fake_label_val": [0.0, 0.3]}
        loss = create_loss({"type": "GANLoss", "gan_type": "lsgan", **soft}).loss
        for is_real, low, high in ((True, 0.7, 1.2), (False, 0.0, 0.3)):
            torch.manual_seed(0)
            labels = loss.label(torch.zeros(500, 1), is_real, is_disc=True)
            assert labels.min() >= low and labels.max() <= high and labels.std() > 0.28 * (high - low)
            again = loss.label(torch.zeros(500, 1), is_real, is_disc=True)
            assert not torch.equal(labels, again)
            torch.manual_seed(0)
            assert torch.equal(labels, loss.label(torch.zeros(500, 1), is_real, is_disc=True))
        assert self.value("lsgan", True, **soft) == self.value("lsgan", True)  # the generator asks for 1

    def test_no_range(self):
        with pytest.raises(UserError, match=r"real_label_val: \[1\.2, 0\.7\] is not a range"):
            self.value("lsgan", True, real_label_val=[1.2, 0.7])
