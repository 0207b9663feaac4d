"""Reads what a benchmark measures (models, data sets, metrics) from a YAML file, the command line, or both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llie.data.pairing import find_sides
from llie.errors import UserError, suggest
from llie.metrics import create_metric
from llie.metrics.protocols import with_counterparts
from llie.options.files import SHIPPED, read_inherited

# Metrics that need no download. LPIPS needs the weights of its backbone, so it is measured only if it is named.
METRICS: dict[str, dict[str, Any]] = {name: {"type": name} for name in ("psnr", "ssim", "delta_e", "niqe")}
_NAME = re.compile(r"[^/\\:\0]{1,80}")


@dataclass(frozen=True)
class ModelSpec:
    """A network to measure.

    Attributes:
        name: name in tables and of files.
        model: what `llie enhance --model` takes: a checkpoint, a run, or the name of a network.
        network: registered name of the network, if the checkpoint is not recognised.
        controls: test-time controls of the network.
        published: method in `published.yml` to compare with; None: all methods with that network.
    """

    name: str
    model: str
    network: str | None = None
    controls: dict[str, Any] = field(default_factory=dict)
    published: str | None = None


@dataclass(frozen=True)
class CostSpec:
    """How cost is measured: an image of `size` (height, width), `warmup` runs, then `repeats` runs that count."""

    size: tuple[int, int] = (256, 256)
    warmup: int = 2
    repeats: int = 10


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes:
        models: in the order of the rows.
        datasets: name -> section of an option file, `{type, **arguments}`.
        metrics: name -> `{type, **arguments}`.
        protocols: names of protocols; the GT-mean form of each is added.
        average: "image": mean over images; "folder": mean over the means of folders.
        seed: random seed, set anew for every model.
        plugins: Python files with the user's own networks, metrics and data sets.
        cost: how cost is measured.
        title: title of the page.
    """

    models: list[ModelSpec]
    datasets: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(METRICS))
    protocols: list[str] = field(default_factory=lambda: with_counterparts(["rgb8"]))
    average: str = "image"
    seed: int = 0
    plugins: list[str] = field(default_factory=list)
    cost: CostSpec = CostSpec()
    title: str = "Low-light enhancement, measured"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, from which `plan_of` builds the same plan."""
        return asdict(self)


def read_plan(
    file: str | Path | None = None,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    metrics: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> Plan:
    """The plan in a YAML file, with models and data sets from the command line added to it.

    Args:
        file: YAML file with the keys of `Plan`; None: everything is on the command line.
        models: `NAME=MODEL` or `MODEL`, see `ModelSpec.model`.
        datasets: `NAME=PLACE` or `PLACE`: a data set that llie knows (`LOLv1`), or a folder, of pairs in any usual
            layout or of photographs alone.
        metrics: names of registered metrics, instead of the default ones.
        plugins: Python files with the user's own classes.

    Raises:
        UserError: a key, model, data set, metric or protocol is unknown, or there is no model or no data set.
    """
    values = {} if file is None else dict(read_inherited(Path(file))[0])
    given = values.get("datasets") or {}
    if not isinstance(given, Mapping):  # a list of words
        given = dict(_dataset(str(word)) for word in given)
    values["models"] = [*(values.get("models") or []), *models]
    values["datasets"] = {**given, **dict(_dataset(word) for word in datasets)}
    values["plugins"] = [*(values.get("plugins") or []), *plugins]
    if metrics:
        values["metrics"] = {name: {"type": name} for name in metrics}
    return plan_of(values, "the command line" if file is None else str(file))


def plan_of(values: Mapping[str, Any], where: str) -> Plan:
    """Check plain values, and build a plan from them.

    Args:
        values: the keys of `Plan`.
        where: their source, for messages.

    Raises:
        UserError: see `read_plan`.
    """
    known = list(Plan.__dataclass_fields__)
    for key in values:
        if key not in known:
            raise UserError(f"{where}: no key is called {key!r}.{suggest(key, known)} Known: {', '.join(known)}")
    chosen = {key: value for key, value in values.items() if value is not None}
    chosen["models"] = [_model(spec, where) for spec in chosen.get("models") or []]
    chosen["datasets"] = {
        str(name): _dataset(f"{name}={section}")[1] if isinstance(section, str) else dict(section)
        for name, section in (chosen.get("datasets") or {}).items()
    }
    if not chosen["models"] or not chosen["datasets"]:
        missing = "models" if not chosen["models"] else "data sets"
        raise UserError(f"{where}: there are no {missing}; for instance --models dawn clahe --data LOLv1")
    names = [spec.name for spec in chosen["models"]]
    for name in [*names, *chosen["datasets"]]:
        if not _NAME.fullmatch(name) or name[0] == "." or name in ("input", "reference"):
            raise UserError(f"{where}: {name!r} cannot be the name of a file; give it another one: NAME=PLACE")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{where}: two models are called {twice[0]!r}; give one another name: NAME=MODEL")
    chosen["cost"] = _cost(chosen.get("cost") or {}, where)
    chosen["protocols"] = with_counterparts(chosen.get("protocols") or ["rgb8"])
    plan = Plan(**chosen)
    if plan.average not in ("image", "folder"):
        raise UserError(f"{where}: average is image or folder, not {plan.average!r}")
    return plan


def check_metrics(plan: Plan) -> None:
    """Check names and arguments of the metrics; the plug-ins must be loaded.

    Raises:
        UserError: a name or an argument is unknown.
    """
    for name, spec in plan.metrics.items():
        create_metric({"type": name, **(spec or {})}, name)


def _model(spec: Any, where: str) -> ModelSpec:
    if isinstance(spec, str):
        name, _, model = spec.rpartition("=")
        return ModelSpec(name or (Path(model).stem if "/" in model or "." in model else model), model)
    known = list(ModelSpec.__dataclass_fields__)
    if not isinstance(spec, Mapping) or not spec.get("model"):
        raise UserError(f"{where}: a model is a name, or a mapping with the key 'model', not {spec!r}")
    for key in spec:
        if key not in known:
            raise UserError(f"{where}: a model has no {key!r}.{suggest(key, known)} It has: {', '.join(known)}")
    return ModelSpec(**{"name": str(spec["model"]), **spec})


def _cost(spec: Mapping[str, Any], where: str) -> CostSpec:
    known = list(CostSpec.__dataclass_fields__)
    for key in spec:
        if key not in known:
            raise UserError(f"{where}: cost has no {key!r}.{suggest(key, known)} It has: {', '.join(known)}")
    cost = CostSpec(**{**spec, "size": tuple(spec.get("size", CostSpec.size))})
    if len(cost.size) != 2 or min(cost.size) < 1 or cost.warmup < 0 or cost.repeats < 1:
        raise UserError(f"{where}: cost needs size: [height, width], warmup (0 or more) and repeats (1 or more)")
    return cost


def _dataset(word: str) -> tuple[str, dict[str, Any]]:
    """`NAME=PLACE` or `PLACE` -> the name and the section."""
    name, _, place = word.rpartition("=")
    folder = Path(place).expanduser()
    if folder.is_dir():
        try:
            low, high = find_sides(folder, "test")
        except UserError:
            return name or folder.name, {"type": "UnpairedImageDataset", "dataroot_lq": str(folder)}
        sides = {"dataroot_lq": str(low), "dataroot_gt": str(high)}
        return name or folder.name, {"type": "PairedImageDataset", **sides}
    shipped = known_datasets()
    if place not in shipped:
        raise UserError(
            f"no data set {place!r}: neither a folder nor one that llie knows.{suggest(place, shipped)} "
            f"Known: {', '.join(sorted(shipped))}"
        )
    return name or place, shipped[place]


def known_datasets() -> dict[str, dict[str, Any]]:
    """The evaluation sets of the option files that ship with llie: name -> section."""
    found = {}
    for file in sorted((SHIPPED / "_base_" / "datasets").glob("*.yml")):
        for role, section in read_inherited(file)[0].get("datasets", {}).items():
            if not role.startswith("train"):
                found[section.get("name", file.stem)] = dict(section)
    return found
