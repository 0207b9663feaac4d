"""Adversarial losses on the scores of a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.errors import UserError
from llie.losses.base import check_choice
from llie.registry import LOSS_REGISTRY

KINDS = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")


@LOSS_REGISTRY.register()
class GANLoss(nn.Module):
    """Distance of a discriminator's scores from "real" or "fake".

    A label may be a range [low, high]: the discriminator then learns from a random label for every score ("soft
    labels", Salimans et al., NeurIPS 2016), while the target of the generator is always 1.

    Args:
        gan_type: "vanilla" (cross entropy), "lsgan" (squares), "wgan" (mean score), "wgan_softplus" (non-saturating
            logistic) or "hinge".
        real_label_val: target score of real images, for vanilla and lsgan.
        fake_label_val: target score of fake images, for vanilla and lsgan.

    Raises:
        UserError: an unknown type, or an invalid range.
    """

    needs_target = False

    def __init__(
        self,
        gan_type: str = "vanilla",
        real_label_val: float | tuple[float, float] = 1.0,
        fake_label_val: float | tuple[float, float] = 0.0,
    ):
        super().__init__()
        check_choice("gan_type", gan_type, KINDS)
        self.gan_type = gan_type
        self.real_label = _as_range("real_label_val", real_label_val)
        self.fake_label = _as_range("fake_label_val", fake_label_val)

    def forward(self, pred: Tensor, target_is_real: bool = True, is_disc: bool = False) -> Tensor:
        """The loss for scores of any shape.

        Args:
            pred: the discriminator's scores, without a sigmoid; lsgan takes scores of any kind.
            target_is_real: whether the scores should say "real"; True for the generator's fakes.
            is_disc: whether the discriminator is being trained (matters for random labels, and for hinge, which has no
                margin for the generator).
        """
        sign = -1.0 if target_is_real else 1.0
        if self.gan_type == "hinge" and is_disc:
            return F.relu(1 + sign * pred).mean()
        if self.gan_type in ("wgan", "hinge"):
            return sign * pred.mean()
        if self.gan_type == "wgan_softplus":
            return F.softplus(sign * pred).mean()
        label = self.label(pred, target_is_real, is_disc)
        return (
            F.binary_cross_entropy_with_logits(pred, label) if self.gan_type == "vanilla" else F.mse_loss(pred, label)
        )

    def label(self, pred: Tensor, is_real: bool, is_disc: bool) -> Tensor:
        """The target of each score; random ones use PyTorch's generator, which the trainer seeds at every step."""
        low, high = self.real_label if is_real else self.fake_label
        if low == high:
            return torch.full_like(pred, low)
        return torch.empty_like(pred).uniform_(low, high) if is_disc else torch.full_like(pred, float(is_real))


def _as_range(option: str, value: float | tuple[float, float]) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, int | float) else value
    if low > high:
        raise UserError(f"{option}: [{low}, {high}] is not a range; write for example [0.7, 1.2]")
    return low, high
