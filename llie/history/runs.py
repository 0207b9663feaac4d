"""Reads the folder of a training run: options, training curves, validation figures, versions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llie.engine.checkpoint import MODELS
from llie.errors import UserError
from llie.weights import read_checkpoint

Curve = list[tuple[int, float]]
_PROGRESS = re.compile(r"^\S+ \S+ (\d+)/\d+  .*  ([\d.e+-]+) it/s", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A training run, finished or not.

    Attributes:
        name: name of the folder.
        folder: the folder.
        options: the complete options; empty if the file is missing.
        training: name -> curve of losses, `lr_g`, `grad_norm_g`, `seconds_per_step`; a curve is a list of
            (iteration, value).
        validation: `metric/protocol` -> curve.
        best: iteration of the best checkpoint; None if none was kept.
        versions: versions of llie, torch and Python, and the git revision.
    """

    name: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Curve] = field(default_factory=dict)
    validation: dict[str, Curve] = field(default_factory=dict)
    best: int | None = None
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def averaged(self) -> bool:
        """Whether validation measures the moving average of the weights."""
        return bool((self.options.get("train") or {}).get("ema_decay"))

    @property
    def weights(self) -> str:
        """Which weights validation measures."""
        return "moving average" if self.averaged else "weights"

    def last_figures(self) -> dict[str, float]:
        """Figures of the last validation."""
        return {column: curve[-1][1] for column, curve in self.validation.items()}

    def best_figures(self) -> dict[str, float]:
        """Figures of the best checkpoint."""
        return {column: dict(curve)[self.best] for column, curve in self.validation.items() if self.best in dict(curve)}


def read_run(place: str | Path) -> Run:
    """Read a run.

    Args:
        place: folder of the run, or its name under `experiments/`.

    Raises:
        UserError: there is no such run, or it has not logged anything.
    """
    given = Path(place).expanduser()
    folder = next((path for path in (given, Path("experiments") / given) if path.is_dir()), None)
    if folder is None:
        raise UserError(f"no run {place}: neither a folder nor a run under experiments/")
    log = folder / "metrics.jsonl"
    if not log.is_file():
        raise UserError(f"{folder} contains no metrics.jsonl, so it is not a training run of llie, or has not begun")
    curves: dict[str, dict[str, Curve]] = {"train": {}, "val": {}}
    for line in log.read_text(encoding="utf-8").splitlines():
        _add(curves, line)
    speed = _seconds_per_step(folder / "train.log")
    facts = _facts(folder)
    return Run(
        name=folder.resolve().name,
        folder=folder,
        options=_options(folder / "options.yml"),
        training=curves["train"] | ({"seconds_per_step": speed} if speed else {}),
        validation=curves["val"],
        best=facts.get("best"),
        versions=facts.get("versions", {}),
    )


def _add(curves: dict[str, dict[str, Curve]], line: str) -> None:
    """Add one line of metrics.jsonl; an incomplete last line, of a run that was killed, is left out."""
    try:
        values = json.loads(line)
    except ValueError:
        return
    kind, iteration = values.pop("kind"), values.pop("iter")
    for name, value in values.items():
        curves.setdefault(kind, {}).setdefault(name, []).append((iteration, float(value)))


def _seconds_per_step(log: Path) -> Curve:
    """The curve of the rates in train.log; of iterations that a resumed run repeated, the last rate counts."""
    if not log.is_file():
        return []
    found = _PROGRESS.findall(log.read_text(encoding="utf-8"))
    return sorted({int(iteration): 1 / float(rate) for iteration, rate in found if float(rate) > 0}.items())


def _options(file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return {}


def _facts(folder: Path) -> dict[str, Any]:
    """Iteration of the best checkpoint, and versions, from the checkpoints."""
    facts: dict[str, Any] = {}
    for label in ("latest", "best"):
        file = folder / MODELS / f"net_g_{label}.pth"
        if file.is_file():
            content = read_checkpoint(file)
            revision = content.get("git_revision")
            facts["versions"] = {**content.get("versions", {}), **({"revision": revision} if revision else {})}
            if label == "best":
                facts["best"] = content.get("iteration")
    return facts
