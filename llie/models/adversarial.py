"""Adversarial training of a generator and a discriminator, as in SRGAN and the second stage of DRBN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llie.errors import UserError
from llie.losses import build_losses
from llie.models.base import Model, create_network, in_full_precision, result_of
from llie.registry import LOSS_REGISTRY, MODEL_REGISTRY, argument_names, build


@MODEL_REGISTRY.register()
class AdversarialModel(Model):
    """In each iteration the discriminator is updated first, then the generator against the new discriminator.

    A batch contains pairs `lq`, `gt`, and optional images from further data streams: `lq_real`, dark photographs
    without reference, and `hq`, pictures of high quality without a dark partner. Real images are `gt` and `hq`; fake
    ones are the enhanced `lq_real`, or the enhanced `lq` without that stream. Loss terms compare pairs; a term with
    `pred: lq_real` evaluates the enhanced photographs.

    Args:
        options: resolved options with `network_g`, `network_d` and `train`. `train.gan_opt` is the adversarial term
            (`{type: GANLoss, loss_weight: 0.005, ...}`). The generator is not updated in the first
            `train.net_d_init_iters` iterations, then in every `train.net_d_iters`-th. With a weight of 0 it is trained
            without the discriminator.
    """

    streams = ("lq_real", "hq")

    def __init__(self, options: Mapping[str, Any]):
        train = dict(options["train"])
        for key, needed in (("network_d", options.get("network_d")), ("train.optim_d", train.get("optim_d"))):
            if not needed:
                raise UserError(f"AdversarialModel trains a discriminator: give {key}: {{type: ...}}")
        super().__init__(
            {name: create_network(options, name) for name in ("g", "d")}, options.get("val", {}).get("controls")
        )
        gan = dict(train.pop("gan_opt", None) or {"type": "GANLoss"})
        self.gan_weight = gan.pop("loss_weight", gan.pop("weight", 1.0))
        self.gan = build(LOSS_REGISTRY, gan, "train.gan_opt")
        if "is_disc" not in argument_names(self.gan.forward):
            raise UserError(f"train.gan_opt: {gan['type']} is not an adversarial loss; use GANLoss with a gan_type")
        self.losses = build_losses(train)
        self.criteria.extend([self.losses, self.gan])
        self.every, self.pretraining = train.get("net_d_iters", 1), train.get("net_d_init_iters", 0)

        wanted = self.gan_weight or any(str(term.pred).split("/")[0] == "lq_real" for term in self.losses.terms)
        self.enhanced = ("lq", "lq_real") if wanted else ("lq",)
        self.judging = [p for p in self.networks["d"].parameters() if p.requires_grad]
        # Both networks' steps share one forward pass, unless that would keep the graphs of several micro-batches.
        self.may_share = train.get("accumulate", 1) == 1
        self.shares = False
        self.waiting: tuple[Mapping[str, Any], dict[str, Tensor]] | None = None

    def phases(self, iteration: int) -> tuple[str, ...]:
        """The discriminator in every iteration; then the generator, where it is updated."""
        if not self.gan_weight:
            return ("g",)
        generator_steps = iteration > self.pretraining and iteration % self.every == 0
        self.shares = self.may_share and generator_steps
        return ("d", "g") if generator_steps else ("d",)

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's or the generator's loss."""
        for parameter in self.judging:  # the generator's step does not need their gradients
            parameter.requires_grad_(phase == "d")
        return self._judge(batch) if phase == "d" else self._enhance(batch)

    def _judge(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        judged_real = [name for name in ("gt", "hq") if name in batch]
        if not judged_real:
            raise UserError("AdversarialModel needs real images: pairs as datasets.train, or datasets.train_hq")
        real = _together(batch, judged_real)
        if self.shares:
            outputs = self._outputs(batch)
            self.waiting = (batch, outputs)
            fake = _fake(outputs).detach()
        else:
            with torch.no_grad():
                fake = result_of(self.networks["g"](batch.get("lq_real", batch["lq"])))
        # One call for each side, so that batch norm treats real and fake images separately.
        scores = {"real": self.trained["d"](real).float(), "fake": self.trained["d"](fake).float()}
        with torch.autocast(real.device.type, enabled=False):
            loss = sum(self.gan(score, name == "real", is_disc=True) for name, score in scores.items())
        return loss, {f"score_{name}": score.detach().mean() for name, score in scores.items()}

    def _enhance(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        waiting, self.waiting = self.waiting, None
        outputs = waiting[1] if waiting and waiting[0] is batch else self._outputs(batch)
        score = self.networks["d"](_fake(outputs)).float() if self.gan_weight else None
        with torch.autocast(batch["lq"].device.type, enabled=False):  # sums over images need the range of float32
            loss, values = self.losses(in_full_precision(outputs), batch)
            if score is not None:
                adversarial = self.gan_weight * self.gan(score, True, is_disc=False)
                loss, values = loss + adversarial, {**values, "gan": adversarial.detach()}
        return loss, values

    def _outputs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The generator's outputs for `lq`, by name, and for `lq_real`, as "lq_real" and "lq_real/..."."""
        names = [name for name in self.enhanced if name in batch]
        given = self.training_inputs(batch) if names == ["lq"] else {}  # they belong to the pairs alone
        # One call for both, because DDP needs one forward for each backward.
        outputs = self.trained["g"](_together(batch, names), **given)
        result_of(outputs)  # reports a missing result
        outputs = {"out": outputs} if isinstance(outputs, Tensor) else outputs
        pairs = len(batch["lq"])
        named = {name: _of_images(value, slice(pairs)) for name, value in outputs.items()}
        if "lq_real" in names:
            for name, value in outputs.items():
                named["lq_real" if name == "out" else f"lq_real/{name}"] = _of_images(value, slice(pairs, None))
        return named


def _of_images(value: Tensor, which: slice) -> Tensor:
    """Some images of an output; values other than images (a parameter that losses need) stay as they are."""
    return value[which] if value.ndim == 4 else value


def _fake(outputs: Mapping[str, Tensor]) -> Tensor:
    """The fake images, which the generator wants to be taken for real."""
    return outputs.get("lq_real", outputs["out"])


def _together(batch: Mapping[str, Any], names: Sequence[str]) -> Tensor:
    """The images of several entries of a batch, concatenated."""
    sizes = {name: tuple(batch[name].shape[2:]) for name in names}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {width}x{height}" for name, (height, width) in sizes.items())
        raise UserError(f"the data streams differ in size: {listed}; give all training sets the same gt_size")
    return torch.cat([batch[name] for name in names])
