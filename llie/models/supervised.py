"""Supervised training of one network on pairs, with loss terms on any of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llie.errors import UserError
from llie.losses import build_losses
from llie.models.base import Model, create_network, in_full_precision, result_of
from llie.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class SupervisedModel(Model):
    """Minimise the loss terms of the option file.

    Args:
        options: resolved options with `network_g` and `train`.
    """

    def __init__(self, options: Mapping[str, Any]):
        super().__init__({"g": create_network(options, "g")}, options.get("val", {}).get("controls"))
        if options["train"].get("gan_opt"):
            raise UserError("train.gan_opt needs a discriminator: give model_type: AdversarialModel and network_d")
        self.losses = build_losses(options["train"])
        self.criteria.append(self.losses)

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all loss terms, and the value of each."""
        outputs = self.trained["g"](batch["lq"], **self.training_inputs(batch))
        result_of(outputs)  # reports a missing result
        with torch.autocast(batch["lq"].device.type, enabled=False):  # sums over images need the range of float32
            return self.losses(in_full_precision(outputs), batch)
