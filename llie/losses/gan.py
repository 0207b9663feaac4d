"""Adversarial losses on the scores (logits) of a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.losses.base import check_choice
from llie.registry import LOSS_REGISTRY

KINDS = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")


@LOSS_REGISTRY.register()
class GANLoss(nn.Module):
    """Distance of a discriminator's scores from "real" or "fake".

    Args:
        gan_type: "vanilla" (cross entropy), "lsgan" (squares), "wgan" (mean score), "wgan_softplus" (non-saturating
            logistic) or "hinge".
        real_label_val: what a real image should score, for vanilla and lsgan.
        fake_label_val: what a fake image should score, for vanilla and lsgan.
    """

    needs_target = False

    def __init__(self, gan_type: str = "vanilla", real_label_val: float = 1.0, fake_label_val: float = 0.0):
        super().__init__()
        check_choice("gan_type", gan_type, KINDS)
        self.gan_type = gan_type
        self.real_label, self.fake_label = real_label_val, fake_label_val

    def forward(self, pred: Tensor, target_is_real: bool = True, is_disc: bool = False) -> Tensor:
        """Loss of scores of any shape.

        Args:
            pred: the discriminator's scores, before any sigmoid.
            target_is_real: what the scores should say; the generator asks for True of its fakes.
            is_disc: the discriminator is being trained (matters for hinge, which has no margin for the generator).
        """
        sign = -1.0 if target_is_real else 1.0
        if self.gan_type == "hinge" and is_disc:
            return F.relu(1 + sign * pred).mean()
        if self.gan_type in ("wgan", "hinge"):
            return sign * pred.mean()
        if self.gan_type == "wgan_softplus":
            return F.softplus(sign * pred).mean()
        label = torch.full_like(pred, self.real_label if target_is_real else self.fake_label)
        return (
            F.binary_cross_entropy_with_logits(pred, label) if self.gan_type == "vanilla" else F.mse_loss(pred, label)
        )
