"""Validation during training: all metrics on every `datasets.val*`, and a picture of the first image of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llie.data import build_validation_set
from llie.engine.distributed import is_main
from llie.evaluation.evaluate import evaluate
from llie.metrics import create_metric
from llie.models.base import Model
from llie.ops.fusion import fuse
from llie.strips import InMemory

logger = logging.getLogger(__name__)


class Validation:
    """Callable as `validation(network, iteration)`, on all ranks, which share the images.

    Args:
        model: its `predict` is used.
        options: resolved options; `datasets.val*` and `val` are read.
        device: device of the network.
        show: called with (data set name, iteration, picture (3, H, W)): input, result and reference side by side.
    """

    def __init__(
        self,
        model: Model,
        options: Mapping[str, Any],
        device: torch.device,
        show: Callable[[str, int, Tensor], None] = lambda *picture: None,
    ):
        self.model, self.device, self.show = model, device, show
        self.protocols, self.average = options["val"]["protocols"], options["val"]["average"]
        self.told: set[str] = set()
        self.metrics = {name: create_metric(spec, name) for name, spec in (options["val"]["metrics"] or {}).items()}
        sections = {key: section for key, section in options["datasets"].items() if key.startswith("val")}
        self.datasets: dict[str, Any] = {
            section.get("name") or key: build_validation_set(options["datasets"], key, options["manual_seed"])
            for key, section in sections.items()
        }

    @property
    def lower_is_better(self) -> bool:
        """Whether lower is better for the first metric, which decides which checkpoint is the best."""
        paired = all(getattr(dataset, "has_reference", True) for dataset in [*self.datasets.values()][:1])
        measured = [metric for metric in self.metrics.values() if paired or not metric.needs_reference]
        return bool(measured) and measured[0].better == "lower"

    def __call__(self, network: nn.Module, iteration: int) -> dict[str, float]:
        """Mean of every metric under every protocol, prefixed with the data set's name if there are several."""
        values: dict[str, float] = {}
        fuse(network)
        for name, dataset in self.datasets.items():
            predict = self.predictor(network, name, iteration)
            report = evaluate(predict, dataset, self.metrics, self.protocols, name=name, average=self.average)
            for note in report.notes:
                self.tell(note)
            prefix = f"{name}/" if len(self.datasets) > 1 else ""
            values |= {prefix + column: mean for column, mean in report.means.items()}
        return values

    def tell(self, line: str) -> None:
        """Show a line, once in a run."""
        if line not in self.told and is_main():
            logger.warning("validation: %s", line)
        self.told.add(line)

    def predictor(self, network: nn.Module, name: str, iteration: int) -> Callable[[dict[str, Any]], Tensor]:
        """A function from a batch to results, which also shows its first result."""
        first = True
        bounded = InMemory(network, tell=self.tell)

        def predict(batch: dict[str, Any]) -> Tensor:
            nonlocal first
            output = self.model.predict(bounded, batch | {"lq": batch["lq"].to(self.device)}).cpu()
            if first:
                images = [batch["lq"], output, *([batch["gt"]] if batch.get("gt") is not None else [])]
                self.show(name, iteration, torch.cat([image[0].cpu() for image in images], dim=-1))
                first = False
            return output

        return predict
