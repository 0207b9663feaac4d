"""Measures every model on every data set. Each result is a file, so that a benchmark can be resumed and extended.

    FOLDER/rows/DATASET/MODEL.json      figures of each image, means, and what they depend on
    FOLDER/costs/MODEL.json             parameters, MACs, latency and memory on one machine
    FOLDER/pictures/DATASET/MODEL/      small pictures for the page; `input` and `reference` beside the models

A stored result is used again while all that it depends on is the same: weights, data, metrics, seed. Several processes
share the images of each data set; the first process measures the cost.
"""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llie import __version__
from llie.benchmark.cost import device_name, measure_cost
from llie.benchmark.pictures import INPUT, Pictures
from llie.benchmark.plan import ModelSpec, Plan, check_metrics
from llie.data import build_dataset
from llie.engine.checkpoint import write_atomically
from llie.engine.distributed import barrier, broadcast, gather, is_main
from llie.errors import UserError
from llie.evaluation import evaluate
from llie.inference import Enhancer, load
from llie.registry import load_plugins
from llie.weights import hash_of_weights

AS_IT_IS = ModelSpec(INPUT, INPUT)  # the unprocessed input, which is measured like a model


@dataclass(frozen=True)
class Row:
    """One model on one data set.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        identity: what the figures depend on: `model`, `weights` (SHA-256), `dataset` (its options), `data` (SHA-256),
            `metrics`, `protocols`, `average`, `seed`, `llie` (its version).
        network: class name of the network; None for the unprocessed input.
        error: why there are no figures; None if there are.
        means: `metric/protocol` -> mean over images; None if no image has this figure.
        images: `{"name": ..., "psnr/rgb8": ...}` of each image, in order; figures that are not finite are None.
        better: metric -> `higher` or `lower`.
        notes: what was left out, and why.
        cost: see `measure_cost`; None if it could not be measured.
    """

    model: str
    dataset: str
    identity: dict[str, Any]
    network: str | None = None
    error: str | None = None
    means: dict[str, float | None] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    better: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cost: dict[str, Any] | None = None


def measure(
    plan: Plan,
    folder: str | Path,
    device: str | torch.device = "cpu",
    again: bool = False,
    tell: Callable[[str], None] = print,
) -> list[Row]:
    """Measure the rows of a plan that are not in the folder yet.

    In a group of processes, all ranks must call it; the rows are the same on each.

    Args:
        plan: what to measure.
        folder: where results are stored.
        device: device to run on.
        again: measure rows anew that are stored.
        tell: called with a line about each row.

    Returns:
        All rows of the plan, stored and new; those of the unprocessed input come first.

    Raises:
        UserError: a metric is unknown, or the folder cannot be written. Errors within a row are in its `error`.
    """
    folder = Path(folder)
    load_plugins(plan.plugins)
    check_metrics(plan)
    say = tell if is_main() else lambda line: None
    bench = _Bench(plan, folder, torch.device(device), again, say)
    rows = [row for model in [AS_IT_IS, *plan.models] for row in bench.rows_of(model)]
    barrier()
    return rows


class _Bench:
    """One run of `measure`."""

    def __init__(self, plan: Plan, folder: Path, device: torch.device, again: bool, say: Callable[[str], None]):
        self.plan, self.folder, self.device, self.again, self.say = plan, folder, device, again, say
        self.datasets: dict[str, Any] = {}
        self.hashes: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        for name, section in plan.datasets.items():
            try:
                self.datasets[name] = build_dataset({**section, "name": name}, "test")
                self.hashes[name] = broadcast(hash_of_data(self.datasets[name]) if is_main() else "")
            except UserError as error:
                self.errors[name] = str(error)

    def rows_of(self, model: ModelSpec) -> list[Row]:
        """One row for each data set."""
        try:
            enhance: Enhancer | None = self._enhancer(model)
            problem = None
        except Exception as error:
            enhance, problem = None, _reason(error)
        problems = broadcast(gather([problem] if problem else []))
        if enhance is None or problems:  # on all ranks, where it fails on one
            return [self._failed(model, name, problems[0]) for name in self.plan.datasets]
        identity = self._identity(model) | {"weights": hash_of_weights(enhance.network)}
        cost = None if model is AS_IT_IS else self._cost(model, identity["weights"])
        return [self._row(model, name, enhance, identity, cost) for name in self.plan.datasets]

    def _enhancer(self, model: ModelSpec) -> Enhancer:
        if model is AS_IT_IS:
            return Enhancer(nn.Identity(), self.device)
        return load(model.model, self.device, model.network, **model.controls)

    def _row(
        self, model: ModelSpec, name: str, enhance: Enhancer, identity: dict[str, Any], cost: dict[str, Any] | None
    ) -> Row:
        if name in self.errors:
            return self._failed(model, name, self.errors[name])
        section = {key: value for key, value in self.plan.datasets[name].items() if not key.startswith("dataroot")}
        identity = identity | {"data": self.hashes[name], "dataset": section}
        file = self.folder / "rows" / name / f"{model.name}.json"
        network = None if model is AS_IT_IS else type(enhance.network).__name__
        stored = broadcast(_read(file) if is_main() and not self.again else None)
        if stored and stored["identity"] == identity and not stored["error"]:
            self.say(f"{model.name} on {name}: measured before")
            return Row(**stored | {"cost": cost})
        self.say(f"{model.name} on {name}: {len(self.datasets[name])} images")
        try:
            row = self._measured(model, name, enhance, identity)
        except Exception as error:
            row = self._failed(model, name, _reason(error), identity | {"network": network}, traceback.format_exc())
        row = Row(**asdict(row) | {"network": network, "cost": cost})
        self._write(file, asdict(row) | {"cost": None})  # cost belongs to the model, and has a file of its own
        return row

    def _measured(self, model: ModelSpec, name: str, enhance: Enhancer, identity: dict[str, Any]) -> Row:
        plan, pictures = self.plan, Pictures(self.folder / "pictures" / name)
        torch.manual_seed(plan.seed)

        def predict(batch: dict[str, Any]) -> Tensor:
            output = enhance(batch["lq"])
            pictures.keep(batch["number"][0], model.name, batch, output)
            return output

        report = evaluate(
            predict, _Numbered(self.datasets[name]), plan.metrics, plan.protocols, name=name,
            average="folder" if plan.average == "folder" else "image", progress=True,
        )  # fmt: skip
        columns = report.columns
        return Row(
            model.name,
            name,
            identity,
            means={column: _finite(mean) for column, mean in report.means.items()},
            images=[
                {"name": row["name"]} | {column: _finite(row.get(column)) for column in columns} for row in report.rows
            ],
            better={metric.name: metric.better for metric in report.metrics.values()},
            notes=[*report.notes, *report.exclusions],
        )

    def _failed(
        self, model: ModelSpec, name: str, why: str, identity: dict[str, Any] | None = None, trace: str = ""
    ) -> Row:
        self.say(f"{model.name} on {name}: failed: {why}")
        notes = [trace] if trace and "UserError" not in trace else []
        return Row(model.name, name, identity or self._identity(model), error=why, notes=notes)

    def _identity(self, model: ModelSpec) -> dict[str, Any]:
        """What the figures of a model depend on, except for its weights and the data."""
        plan = self.plan
        spec = {key: value for key, value in asdict(model).items() if key not in ("name", "published")}
        return {
            "model": spec,
            "metrics": plan.metrics,
            "protocols": plan.protocols,
            "average": plan.average,
            "seed": plan.seed,
            "llie": __version__,
        }

    def _cost(self, model: ModelSpec, weights: str) -> dict[str, Any] | None:
        """The cost of a model, measured by the first process while the others wait."""
        cost = None
        if is_main():
            file = self.folder / "costs" / f"{model.name}.json"
            machine = {"device": device_name(self.device), "threads": torch.get_num_threads()}
            key = {"weights": weights, "spec": json.loads(json.dumps(asdict(self.plan.cost))), **machine}
            stored = None if self.again else _read(file)
            if stored and stored["key"] == key:
                cost = stored["cost"]
            else:
                self.say(f"{model.name}: cost")
                try:
                    cost = measure_cost(model, self.plan.cost, str(self.device), None, self.plan.plugins)
                    self._write(file, {"key": key, "cost": cost})
                except Exception as error:
                    self.say(f"{model.name}: its cost could not be measured: {_reason(error)}")
        return broadcast(cost)

    def _write(self, file: Path, content: Mapping[str, Any]) -> None:
        if is_main():
            write_atomically(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


class _Numbered:
    """A data set with the key `number` in each item: its index."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        if hasattr(dataset, "pairs"):
            self.pairs = dataset.pairs

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[index] | {"number": index}


def hash_of_data(dataset: Any) -> str:
    """SHA-256 of the files of a data set, in its order; of the tensors of its items if it has no list of files."""
    total = hashlib.sha256()
    if not hasattr(dataset, "pairs"):
        for index in range(len(dataset)):
            item = dataset[index]
            for key in sorted(key for key, value in item.items() if isinstance(value, Tensor)):
                total.update(key.encode() + item[key].contiguous().numpy().tobytes())
        return total.hexdigest()
    digests: dict[Path, bytes] = {}  # a reference may belong to many inputs, and an LMDB to all
    for path in (Path(path) for pair in dataset.pairs for path in pair if path is not None):
        # An image in an LMDB has a path, but no file.
        base = next((parent / "data.mdb" for parent in path.parents if parent.suffix == ".lmdb"), path)
        digests[base] = digests.get(base) or _digest(base)
        total.update(path.name.encode() + digests[base])
    return total.hexdigest()


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


def _read(file: Path) -> dict[str, Any] | None:
    """A stored result; None if there is none, or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text or 'no message'}"


def _finite(value: float | None) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if value is not None and math.isfinite(value) else None
