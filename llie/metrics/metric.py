"""The common part of all metrics: registration with facts about them, and means over the images of a batch."""

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
    """A metric needs weights or a package that is missing on this machine; it is skipped, which is not a failure."""


def register_metric(
    better: Literal["higher", "lower"],
    needs_reference: bool = True,
    also_called: str | None = None,
    needs_input: bool = False,
) -> Callable[[Function], Function]:
    """Register a metric function `f(pred, gt, protocol, ...)`, or `f(pred, protocol, ...)` if it needs no reference.

    One that compares with the unprocessed input is `f(pred, lq, protocol, ...)`.

    Args:
        better: whether higher or lower values are better.
        needs_reference: whether it compares with a reference image.
        also_called: its name in BasicSR's option files.
        needs_input: whether it compares with the unprocessed input; it then needs no reference.
    """

    def register(function: Function) -> Function:
        vars(function).update(better=better, needs_reference=needs_reference, needs_input=needs_input)
        METRIC_REGISTRY.register(function)
        if also_called:
            METRIC_REGISTRY.register(function, also_called)
        return function

    return register


@dataclass(frozen=True)
class Metric:
    """A registered metric with the arguments from an option file; call it as `metric(pred, gt, protocol)`."""

    name: str
    function: Callable[..., float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    better: str = "higher"

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with a reference image."""
        return getattr(self.function, "needs_reference", True)

    @property
    def needs_input(self) -> bool:
        """Whether it compares with the unprocessed input."""
        return getattr(self.function, "needs_input", False)

    def protocols(self, names: Iterable[str]) -> list[str]:
        """The protocols of this metric among the named ones, each once.

        With BasicSR's `test_y_channel`, RGB becomes Y; without a reference, GT-mean forms become plain ones.
        """
        if self.arguments.get("test_y_channel"):
            names = [name.replace("rgb", "y") for name in names]
        return list(dict.fromkeys(names if self.needs_reference else map(plain, names)))

    def __call__(self, pred: Image, gt: Image | None, protocol: str, lq: Image | None = None) -> float:
        """The figure for one image; the reference `gt` and the input `lq` are ignored if the metric needs neither."""
        images = (pred, gt) if self.needs_reference else (pred, lq) if self.needs_input else (pred,)
        return self.function(*images, protocol, **self.arguments)


def create_metric(spec: Mapping[str, Any], name: str = "") -> Metric:
    """Build the metric that `{type: NAME, **arguments}` describes, in our words or in BasicSR's.

    Args:
        spec: entry of an option file. BasicSR's `better: higher | lower` must be right for the metric.
        name: its name in tables; by default its type.

    Raises:
        UserError: an unknown metric or argument, or a wrong `better`.
    """
    where = f"metric {name or spec.get('type', '')!s}"
    if "type" not in spec:
        raise UserError(f"{where}: 'type' is missing (the name of a registered metric)")
    function = METRIC_REGISTRY.get(spec["type"])
    arguments = {key: value for key, value in spec.items() if key not in ("type", "better")}
    own = getattr(function, "better", None)  # metrics of BasicSR or of users may lack it
    better = spec.get("better", own or "higher")
    if better not in ("higher", "lower") or (own and better != own):
        raise UserError(f"{where}: better: {better} is wrong; {spec['type']} is better when {own or 'higher or lower'}")
    metric = Metric(name or spec["type"], function, arguments, better)
    beside = ["gt"] if metric.needs_reference else ["lq"] if metric.needs_input else []
    names = ("pred", *beside, "protocol")
    given = dict.fromkeys(names, object())  # filled in later; fits any annotation
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
    """Apply the protocol, cut off the border, and take the mean of `function` over the pairs of a batch.

    Args:
        function: function of two arrays (H, W, C) on the 0..255 scale.
        pred: see `to_pixels`.
        gt: the reference, with the same shape.
        protocol: name in `PROTOCOLS`.
        crop_border: number of pixels to leave out on each side.
        test_y_channel: use the protocol on Y (`y8` for `rgb8`); BasicSR's option.
        input_order: order of axes of arrays: `HWC` or `CHW`.
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
    """Like `mean_over_pairs`, for a metric without reference.

    Raises:
        UserError: as there, and if the protocol needs a reference.
    """
    if plain(protocol) != protocol:
        raise UserError(f"the protocol {protocol} needs a reference, but this metric has none; use {plain(protocol)}")
    images = to_pixels(pred, "prediction", input_order)
    return float(np.mean([function(cut(apply_protocol(protocol, image, image)[0], crop_border)) for image in images]))
