"""A generator and a discriminator, as in SRGAN-like training and the second stage of DRBN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llie.errors import UserError
from llie.losses import build_losses
from llie.models.base import Model, create_network, in_full_precision, result_of
from llie.registry import LOSS_REGISTRY, MODEL_REGISTRY, build


@MODEL_REGISTRY.register()
class AdversarialModel(Model):
    """The discriminator steps first, then the generator against the updated discriminator.

    Real images are the references, joined by `hq` (images of high quality without a dark partner) when the batch holds
    any. Fake ones are the enhanced `lq`, or, when the batch holds dark images without a partner, the enhanced
    `lq_unpaired`: the paired loss terms then look at pairs and the adversarial term at the others.

    Args:
        options: resolved options with `network_g`, `network_d` and `train`. `train.gan_opt` is the adversarial term
            (`{type: GANLoss, loss_weight: 0.005, ...}`); the generator sits out the first `train.net_d_init_iters`
            iterations and then steps in every `train.net_d_iters`-th.
    """

    def __init__(self, options: Mapping[str, Any]):
        if not options.get("network_d"):
            raise UserError("AdversarialModel needs a discriminator: give network_d: {type: ...}")
        super().__init__(
            {name: create_network(options, name) for name in ("g", "d")}, options.get("val", {}).get("controls")
        )
        train = dict(options["train"])
        gan = dict(train.pop("gan_opt", None) or {"type": "GANLoss"})
        self.gan_weight = gan.pop("loss_weight", gan.pop("weight", 1.0))
        self.gan = build(LOSS_REGISTRY, gan, "train.gan_opt")
        self.losses = build_losses(train)
        self.every, self.pretraining = train.get("net_d_iters", 1), train.get("net_d_init_iters", 0)
        self.criteria.extend([self.losses, self.gan])

    def phases(self, iteration: int) -> tuple[str, ...]:
        """The discriminator in every iteration; the generator after its turn has come."""
        return ("d", "g") if iteration > self.pretraining and iteration % self.every == 0 else ("d",)

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's or the generator's loss."""
        return self._judge(batch) if phase == "d" else self._enhance(batch)

    def _judge(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        real = torch.cat([batch["gt"], batch["hq"]]) if "hq" in batch else batch["gt"]
        with torch.no_grad():
            fake = result_of(self.networks["g"](batch.get("lq_unpaired", batch["lq"])))
        scores = {"real": self.trained["d"](real).float(), "fake": self.trained["d"](fake).float()}
        with torch.autocast(real.device.type, enabled=False):
            loss = sum(self.gan(score, name == "real", is_disc=True) for name, score in scores.items())
        return loss, {f"score_{name}": score.detach().mean() for name, score in scores.items()}

    def _enhance(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        unpaired = batch.get("lq_unpaired")
        # One call for both halves: DDP wants one forward for each backward.
        low = batch["lq"] if unpaired is None else torch.cat([batch["lq"], unpaired])
        outputs = self.trained["g"](low)
        fake = result_of(outputs)[-len(unpaired) :] if unpaired is not None else result_of(outputs)
        score = self.networks["d"](fake).float()
        with torch.autocast(low.device.type, enabled=False):
            paired = in_full_precision(_first(outputs, len(batch["lq"])))
            loss, values = self.losses(paired, batch)
            adversarial = self.gan(score, True, is_disc=False)
        return loss + self.gan_weight * adversarial, {**values, "gan": adversarial.detach()}


def _first(outputs: Any, count: int) -> Any:
    """The outputs of the first images of a batch."""
    if isinstance(outputs, Tensor):
        return outputs[:count] if outputs.ndim == 4 else outputs
    return {name: _first(value, count) for name, value in outputs.items()}
