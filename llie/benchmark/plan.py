"""What a benchmark measures: models, data sets, metrics; from a YAML file, from words, or from both."""

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

# Those that need nothing from elsewhere; LPIPS would fetch its backbone, so it is measured when it is named.
METRICS: dict[str, dict[str, Any]] = {name: {"type": name} for name in ("psnr", "ssim", "delta_e", "niqe")}
_NAME = re.compile(r"[^/\\:\0]{1,80}")


@dataclass(frozen=True)
class ModelSpec:
    """A network to measure.

    Attributes:
        name: in tables, and of files.
        model: what `llie enhance --model` takes: a checkpoint, a run, or the name of a network.
        network: registered name, where the checkpoint does not tell.
        controls: test-time arguments of the network.
        published: the method whose published figures these should be, by its name in `published.yml`; None: all of
            that network.
    """

    name: str
    model: str
    network: str | None = None
    controls: dict[str, Any] = field(default_factory=dict)
    published: str | None = None


@dataclass(frozen=True)
class CostSpec:
    """How cost is measured: one image of `size` (height, width), `warmup` runs, then `repeats` that count."""

    size: tuple[int, int] = (256, 256)
    warmup: int = 2
    repeats: int = 10


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes:
        models: by row.
        datasets: name -> section of an option file, `{type, **arguments}`.
        metrics: name -> `{type, **arguments}`.
        protocols: names; each plain one brings its GT-mean form along.
        average: over `image`s, or over the means of `folder`s.
        seed: of every model's random numbers.
        plugins: Python files with the user's own networks, metrics and data sets.
        cost: how cost is measured.
        title: of the page.
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
        """Plain values; `plan_of` makes the same plan of them."""
        return asdict(self)


def read_plan(
    file: str | Path | None = None,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    metrics: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> Plan:
    """The plan that a YAML file and words describe; words add to what the file has.

    Args:
        file: with the keys of `Plan`.
        models: `NAME=MODEL` or `MODEL`, see `ModelSpec.model`.
        datasets: `NAME=PLACE` or `PLACE`: a data set that llie knows (`LOLv1`), or a folder, of pairs in any usual
            layout or of photographs alone.
        metrics: names of registered metrics, instead of the usual ones.
        plugins: Python files with the user's own classes.

    Raises:
        UserError: a key, model, data set, metric or protocol is not there; no model or no data set is given.
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
    """A plan from plain values, checked.

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
            raise UserError(f"{where}: {name!r} cannot be a name of files; name it like NAME=PLACE")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{where}: two models are called {twice[0]!r}; name them like NAME=MODEL")
    chosen["cost"] = _cost(chosen.get("cost") or {}, where)
    chosen["protocols"] = with_counterparts(chosen.get("protocols") or ["rgb8"])
    plan = Plan(**chosen)
    if plan.average not in ("image", "folder"):
        raise UserError(f"{where}: average is image or folder, not {plan.average!r}")
    return plan


def check_metrics(plan: Plan) -> None:
    """Check the metrics' names and arguments, with the plug-ins loaded.

    Raises:
        UserError: an unknown one.
    """
    for name, spec in plan.metrics.items():
        create_metric({"type": name, **(spec or {})}, name)


def _model(spec: Any, where: str) -> ModelSpec:
    if isinstance(spec, str):
        name, _, model = spec.rpartition("=")
        return ModelSpec(name or (Path(model).stem if "/" in model or "." in model else model), model)
    known = list(ModelSpec.__dataclass_fields__)
    if not isinstance(spec, Mapping) or not spec.get("model"):
        raise UserError(f"{where}: a model is a word, or a mapping with 'model' in it, not {spec!r}")
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
        raise UserError(f"{where}: cost needs size: [height, width], warmup and repeats of at least 0 and 1")
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
