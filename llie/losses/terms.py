"""Loss terms as in option files: any registered loss on any named output of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llie.errors import UserError, suggest
from llie.losses.base import check_choice
from llie.ops.hvi import rgb_to_hvi
from llie.registry import LOSS_REGISTRY, argument_names, build, check_arguments


class LossTerm(nn.Module):
    """One weighted loss on one output of the network.

    Args:
        loss: called with (prediction, target); with (prediction) if its class sets `needs_target = False`; or with
            (outputs, batch) if its class sets `takes_outputs = True`: it then chooses what it compares. With
            `pred: plain`, it gets the outputs "plain" (as "out") and "plain/NAME" (as "NAME").
        weight: factor on the loss.
        pred: name of the output to compare.
        target: name of the target: an entry of the batch, or else another output of the network. By default the
            loss's `default_target`, or "gt".
        target_stride: compare with every n-th row and column of the target, for outputs at a coarser scale.
        space: "rgb", or "hvi" to compare in the colour space whose exponent is the output "k".
        name: its name in logs.
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float = 1.0,
        pred: str = "out",
        target: str | None = None,
        target_stride: int = 1,
        space: str = "rgb",
        name: str = "",
    ):
        super().__init__()
        check_choice("space", space, ("rgb", "hvi"))
        if target_stride < 1:
            raise UserError(f"target_stride: must be at least 1, not {target_stride}")
        self.loss, self.weight, self.name = loss, weight, name or type(loss).__name__
        self.pred, self.target_stride, self.space = pred, target_stride, space
        self.target: str = getattr(loss, "default_target", "gt") if target is None else target

    def forward(self, outputs: Tensor | Mapping[str, Tensor], batch: Tensor | Mapping[str, Any]) -> Tensor:
        """The weighted loss as a scalar.

        Args:
            outputs: the network's outputs; a single tensor is the output that this term compares.
            batch: the loader's batch; a single tensor is this term's target.

        Raises:
            UserError: the output or target that the term names does not exist.
        """
        outputs = {self.pred: outputs} if isinstance(outputs, Tensor) else outputs
        batch = {self.target: batch} if isinstance(batch, Tensor) else batch
        if getattr(self.loss, "takes_outputs", False):
            return self.weight * self.loss(self._branch(outputs), batch)
        pred = self._in_space(self._pick(self.pred, outputs), outputs)
        if not getattr(self.loss, "needs_target", True):
            return self.weight * self.loss(pred)
        target = self._pick(self.target, {**outputs, **batch})
        target = self._in_space(target[..., :: self.target_stride, :: self.target_stride], outputs)
        if pred.shape != target.shape:
            raise UserError(
                f"loss {self.name}: output {self.pred!r} is {tuple(pred.shape)}, target {self.target!r} is "
                f"{tuple(target.shape)}; coarser scales need 'target_stride'"
            )
        value = self.loss(pred, target)
        if isinstance(value, tuple):  # BasicSR's perceptual losses return (content, style or None)
            value = sum(part for part in value if part is not None)
        return self.weight * value

    def _pick(self, name: str, entries: Mapping[str, Any]) -> Tensor:
        if name in entries:
            return entries[name]
        raise UserError(f"loss {self.name}: there is no {name!r} among {', '.join(entries)}.{suggest(name, entries)}")

    def _branch(self, outputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The outputs of the branch that `pred` names, under their plain names."""
        if self.pred == "out":
            return outputs
        prefix = f"{self.pred}/"
        further = {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}
        return {"out": self._pick(self.pred, outputs), **further}

    def _in_space(self, image: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        return image if self.space == "rgb" else rgb_to_hvi(image, self._pick("k", outputs))

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"weight={self.weight}, pred={self.pred!r}, target={self.target!r}, space={self.space!r}"


def needs_reference(loss: type, target: str | None = None) -> bool:
    """Whether a term with this loss class and this `target` option uses the reference `gt`."""
    if getattr(loss, "takes_outputs", False):
        return True
    return getattr(loss, "needs_target", True) and (target or getattr(loss, "default_target", "gt")) == "gt"


class LossSum(nn.Module):
    """The sum of loss terms, and the value of each term for the log.

    Args:
        terms: the terms; their names must differ.
    """

    def __init__(self, terms: list[LossTerm]):
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def forward(
        self, outputs: Tensor | Mapping[str, Tensor], batch: Tensor | Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and name -> weighted value of each term (detached); see `LossTerm.forward`."""
        values = {str(term.name): term(outputs, batch) for term in self.terms}
        total = torch.stack([value.reshape(()) for value in values.values()]).sum()
        return total, {name: value.detach() for name, value in values.items()}


def create_loss(spec: Mapping[str, Any], where: str = "loss") -> LossTerm:
    """Build one term from `{type, weight, pred, target, target_stride, space, name, **arguments of the class}`.

    BasicSR's `loss_weight` means `weight`.

    Args:
        spec: the term as an option file gives it; only `type` is required.
        where: its name in error messages.

    Raises:
        UserError: an unknown type, key or value; the message suggests the nearest.

    Example:
        >>> loss = create_loss({"type": "L1Loss", "weight": 2.0})
        >>> loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
        tensor(2.)
    """
    spec = dict(spec)
    if "loss_weight" in spec:
        if "weight" in spec:
            raise UserError(f"{where}: give either 'weight' or 'loss_weight'")
        spec["weight"] = spec.pop("loss_weight")
    # Keys about the use of the loss go to the term, all others to its class.
    term_keys = argument_names(LossTerm)[1:]
    usage = {key: spec.pop(key) for key in term_keys if key in spec}
    if "type" in spec:
        known = ["type", *term_keys, *argument_names(LOSS_REGISTRY.get(spec["type"]))]
        for key in spec:
            if key not in known:
                raise UserError(f"{where}: {spec['type']} has no option {key!r}.{suggest(key, known)}")
    check_arguments(LossTerm, {"loss": None, **usage}, where)
    return LossTerm(build(LOSS_REGISTRY, spec, where), **usage)


def build_losses(train_options: Mapping[str, Any]) -> LossSum:
    """Build all loss terms of a training section.

    Reads `losses` (a list of specs, or a mapping of names to specs) and BasicSR's keys (`pixel_opt`, `perceptual_opt`
    and any other `*_opt`). A term of weight 0 is left out: it takes no time and loads no backbone. `gan_opt` is not a
    term: adversarial models build it themselves.

    Args:
        train_options: the `train` section of the options.

    Raises:
        UserError: there is no loss, or a spec is wrong; the message says which.
    """
    losses = train_options.get("losses") or {}
    named: list[tuple[str | None, Mapping[str, Any]]] = []
    named += losses.items() if isinstance(losses, Mapping) else [(None, spec) for spec in losses]
    for key, spec in train_options.items():
        if key.endswith("_opt") and key != "gan_opt" and isinstance(spec, Mapping):
            named.append((key.removesuffix("_opt"), spec))

    terms: list[LossTerm] = []
    for position, (name, spec) in enumerate(named):
        if spec.get("weight", spec.get("loss_weight")) == 0:
            continue
        term = create_loss(spec, where=f"train.losses.{position if name is None else name}")
        term.name = name or term.name
        taken = sum(other.name == term.name or other.name.startswith(f"{term.name}_") for other in terms)
        term.name += f"_{taken + 1}" if taken else ""
        terms.append(term)
    if not terms:
        raise UserError("train.losses: training needs a loss, for instance [{type: L1Loss, weight: 1.0}]")
    return LossSum(terms)
