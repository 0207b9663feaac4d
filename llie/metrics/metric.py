"""What every metric has in common: facts about it, its registration, images in and one number out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from llie.errors import UserError
from llie.metrics.images import Image, Pixels, cut, to_pixels
from llie.metrics.protocols import apply_protocol, plain
from llie.registry import METRIC_REGISTRY, check_arguments

Function = TypeVar("Function", bound=Callable[..., float])


class MetricUnavailable(UserError):
    """What a metric computes with (weights, a package) is not on this machine: it is skipped, not a failure."""


def register_metric(
    better: Literal["higher", "lower"], needs_reference: bool = True, also_called: str | None = None
) -> Callable[[Function], Function]:
    """Register a metric function `f(pred, gt, protocol, ...)`, or `f(pred, protocol, ...)` when it needs no reference.

    Args:
        better: which way is good.
        needs_reference: whether it compares with a reference image.
        also_called: its name in BasicSR's option files.
    """

    def register(function: Function) -> Function:
        vars(function).update(better=better, needs_reference=needs_reference)
        METRIC_REGISTRY.register(function)
        if also_called:
            METRIC_REGISTRY.register(function, also_called)
        return function

    return register


@dataclass(frozen=True)
class Metric:
    """A registered metric with the arguments that an option file gives it; call it as `metric(pred, gt, protocol)`."""

    name: str
    function: Callable[..., float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    better: str = "higher"

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with a reference image."""
        return getattr(self.function, "needs_reference", True)

    def protocols(self, names: Iterable[str]) -> list[str]:
        """Those of the named protocols that this metric is measured under, each once.

        Y instead of RGB for BasicSR's `test_y_channel`; without the help of a reference where there is none.
        """
        if self.arguments.get("test_y_channel"):
            names = [name.replace("rgb", "y") for name in names]
        return list(dict.fromkeys(names if self.needs_reference else map(plain, names)))

    def __call__(self, pred: Image, gt: Image | None, protocol: str) -> float:
        """The figure for one image; `gt` is not looked at when the metric needs no reference."""
        images = (pred, gt) if self.needs_reference else (pred,)
        return self.function(*images, protocol, **self.arguments)


def create_metric(spec: Mapping[str, Any], name: str = "") -> Metric:
    """The metric that `{type: NAME, **arguments}` describes; names and arguments of BasicSR's option files are known.

    Args:
        spec: entry of an option file. `better: higher | lower` of BasicSR is checked against the metric's own fact.
        name: what to call it in tables; by default its type.

    Raises:
        UserError: an unknown metric or argument, or a wrong `better`.
    """
    where = f"metric {name or spec.get('type', '')!s}"
    if "type" not in spec:
        raise UserError(f"{where}: 'type' is missing (the name of a registered metric)")
    function = METRIC_REGISTRY.get(spec["type"])
    arguments = {key: value for key, value in spec.items() if key not in ("type", "better")}
    own = getattr(function, "better", None)  # metrics of BasicSR or of a user may not have it
    better = spec.get("better", own or "higher")
    if better not in ("higher", "lower") or (own and better != own):
        raise UserError(f"{where}: better: {better} is wrong; {spec['type']} is better when {own or 'higher or lower'}")
    metric = Metric(name or spec["type"], function, arguments, better)
    names = ("pred", "gt", "protocol") if metric.needs_reference else ("pred", "protocol")
    given = dict.fromkeys(names, object())  # filled in later: accepted for any annotation
    check_arguments(function, given | arguments, where)
    return metric


def mean_over_pairs(
    function: Callable[[Pixels, Pixels], float],
    pred: Image,
    gt: Image,
    protocol: str,
    crop_border: int = 0,
    test_y_channel: bool = False,
    input_order: str = "HWC",
) -> float:
    """The mean of `function` over the pairs of a batch, after the protocol, with the border cut off.

    Args:
        function: takes two (H, W, C) arrays on the 0..255 scale.
        pred: see `to_pixels`.
        gt: the reference, of the same shape.
        protocol: name in `PROTOCOLS`.
        crop_border: how many pixels to leave out on each side.
        test_y_channel: use the protocol on Y (`y8` for `rgb8`), BasicSR's way to say it.
        input_order: of arrays: `HWC` or `CHW`.
    """
    if test_y_channel:
        protocol = protocol.replace("rgb", "y")
    predictions = to_pixels(pred, "prediction", input_order)
    references = to_pixels(gt, "reference", input_order)
    if len(predictions) != len(references):
        raise UserError(f"{len(predictions)} predictions but {len(references)} references")
    pairs = (apply_protocol(protocol, *pair) for pair in zip(predictions, references, strict=True))
    return float(np.mean([function(cut(p, crop_border), cut(g, crop_border)) for p, g in pairs]))


def mean_over_images(
    function: Callable[[Pixels], float], pred: Image, protocol: str, crop_border: int = 0, input_order: str = "HWC"
) -> float:
    """As `mean_over_pairs`, for a metric without reference.

    Raises:
        UserError: also when the protocol needs a reference.
    """
    if plain(protocol) != protocol:
        raise UserError(f"the protocol {protocol} needs a reference, this metric has none; use {plain(protocol)}")
    images = to_pixels(pred, "prediction", input_order)
    return float(np.mean([function(cut(apply_protocol(protocol, image, image)[0], crop_border)) for image in images]))
