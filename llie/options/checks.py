"""Validating merged options: known keys, right kinds, registered names; all defaults are filled in."""

from __future__ import annotations

import copy
import logging
import os
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llie import registry
from llie.errors import UserError, suggest
from llie.options import schema
from llie.options.schema import ABSENT, REQUIRED, Key, Section
from llie.registry.kinds import describe, fit

logger = logging.getLogger(__name__)


class Checker:
    """Validates options by the schema and the registered classes.

    Args:
        origins: dotted path -> "file:line", for error messages.
        file: the option file, for messages about missing keys.
    """

    def __init__(self, origins: Mapping[str, str], file: str):
        self.origins = origins
        self.file = file
        self.without_effect: dict[str, list[str]] = {}
        self.mistakes: list[str] = []

    def resolve(self, values: dict[str, Any], phase: str) -> dict[str, Any]:
        """All options of a run, for `phase` "train" or "test".

        Raises:
            UserError: all mistakes, one per line; an unknown key does not hide the next one.
        """
        options: dict[str, Any] = {}
        with self.noting():
            self._resolve(values, phase, options)
        if self.mistakes:
            head = f"{len(self.mistakes)} mistakes in the options:\n  " if len(self.mistakes) > 1 else ""
            raise UserError(head + "\n  ".join(self.mistakes))
        if self.without_effect:
            ignored = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in self.without_effect.items())
            self.warn(f"accepted without effect: {ignored}")
        return options

    def _resolve(self, values: dict[str, Any], phase: str, options: dict[str, Any]) -> None:
        options |= self.section(values, schema.SCHEMA, "")
        self.name(options["name"], "name")
        with self.noting():
            self.seeds(options["manual_seed"])
        options["model_type"] = schema.MODEL_ALIASES.get(options["model_type"], options["model_type"])
        if isinstance(options["num_gpu"], list):
            options["num_gpu"] = len(options["num_gpu"])
        options["datasets"] = self.datasets(options["datasets"], phase)
        with self.noting():
            options["network_g"] = self.network(options["network_g"], "network_g", registry.ARCH_REGISTRY)
            self.controls(options["val"]["controls"], options["network_g"])
            if phase == "train":
                self.learner(options["network_g"])
        with self.noting():
            if options["network_d"] is not None:
                options["network_d"] = self.network(options["network_d"], "network_d", registry.DISCRIMINATOR_REGISTRY)
        options["val"]["metrics"] = self.metrics(options["val"]["metrics"] or {})
        with self.noting():
            self.protocols(options["val"]["protocols"])
        with self.noting():
            with self.at("model_type"):
                registry.MODEL_REGISTRY.get(options["model_type"])
            if phase == "train":
                self.streams(options["datasets"], options["model_type"])
        if phase == "train":
            self.training(options["train"])
            if not self.mistakes:  # it needs valid sections
                self.references(options["datasets"]["train"]["type"], options["train"])

    def seeds(self, seeds: int | list[int]) -> None:
        """Validate a list of seeds."""
        if not isinstance(seeds, list):
            return
        if not seeds:
            raise self.error("manual_seed", "a list of seeds must not be empty")
        for seed in seeds:
            self.value(seed, Key(int, least=0, most=2**63 - 1), "manual_seed", given=True)
            if seeds.count(seed) > 1:
                raise self.error("manual_seed", f"{seed} stands twice in the list of seeds")

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Collect a mistake instead of raising it, so that the rest is validated, too."""
        try:
            yield
        except UserError as error:
            self.mistakes.append(str(error))

    def error(self, path: str, message: str) -> UserError:
        """A `UserError` that begins with the file, the line and the dotted path of the key."""
        place = path
        while place and place not in self.origins:
            place = place.rpartition(".")[0]
        return UserError(f"{self.origins[place] if place else self.file}: {path}: {message}")

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Add the file and line of `path`, or of the key below it that the message names, to errors raised inside."""
        try:
            yield
        except UserError as error:
            named, _, message = str(error).partition(": ")
            if named != path and not named.startswith(f"{path}."):
                named, message = path, str(error)
            raise self.error(named, message) from None

    def section(self, values: Any, rules: Section, path: str, others: Collection[str] = ()) -> dict[str, Any]:
        """Validate one mapping and fill in all defaults; keys in `others` are kept without validation."""
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise self.error(path, f"expected a mapping (key: value), not {values!r}")
        known = {*rules, *others}
        for key in values:
            with self.noting():
                if key not in known:
                    raise self.error(_join(path, key), f"unknown option.{suggest(key, sorted(known))}")
        checked: dict[str, Any] = {}
        for key, rule in rules.items():
            value, place = values.get(key), _join(path, key)
            if isinstance(rule, Mapping):
                checked[key] = self.section(value, rule, place)
            elif rule.no_effect is not None:
                if value:
                    self.without_effect.setdefault(rule.no_effect, []).append(place)
            elif key in values or rule.default is not ABSENT:
                checked[key] = self.value(value, rule, place, given=key in values)
        return checked | {key: values[key] for key in values if key in others and key not in rules}

    def value(self, value: Any, rule: Key, path: str, given: bool) -> Any:
        """Validate one value; null means the default where it is not a valid value."""
        if value is None and not (given and type(None) in typing.get_args(rule.kind)):
            if rule.default is REQUIRED:
                raise self.error(path, f"missing; expected {describe(rule.kind)}")
            return copy.deepcopy(rule.default)
        try:
            value = fit(value, rule.kind)
        except TypeError:
            raise self.error(path, f"expected {describe(rule.kind)}, not {value!r}") from None
        if rule.least is not None and isinstance(value, int | float) and not value >= rule.least:
            raise self.error(path, f"{value} is too small; the minimum is {rule.least:g}")
        if rule.most is not None and isinstance(value, int | float) and value > rule.most:
            raise self.error(path, f"{value} is too large; the maximum is {rule.most:g}")
        return value

    def name(self, name: str | None, path: str) -> None:
        """Check a name that is used for a folder or file."""
        if name is not None and (not name.strip(". ") or any(character in name for character in '/\\:*?"<>|')):
            raise self.error(path, f"{name!r} cannot be a folder name; use letters, digits, - and _")

    def warn(self, message: str) -> None:
        """Log a warning in the first process only."""
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            logger.warning("%s: %s", self.file, message)

    def typed(self, spec: Any, path: str, what: str) -> dict[str, Any]:
        """Validate a mapping with a `type` that is a name."""
        if not isinstance(spec, dict):
            raise self.error(path, f"expected a mapping {{type: ...}}, not {spec!r}")
        if not isinstance(spec.get("type"), str):
            raise self.error(_join(path, "type"), f"expected the name of a registered {what}")
        return spec

    def target(self, names: registry.Registry, spec: Mapping[str, Any], path: str) -> Any:
        """The registered class with the name `spec["type"]`."""
        with self.at(_join(path, "type")):
            return names.get(spec["type"])

    def network(self, spec: dict[str, Any], path: str, names: registry.Registry) -> dict[str, Any]:
        """Validate a network; the name of a preset is replaced by the arguments on the network's card."""
        from llie.archs import card_of  # imports torch, so misspelt keys are reported before

        self.typed(spec, path, "network")
        for name, network in names:
            presets = card_of(network).presets
            if spec["type"] in presets:
                spec = {**presets[spec["type"]], **spec, "type": name}
        if isinstance(spec.get("host"), dict):  # a network that contains another one
            spec = {**spec, "host": self.network(spec["host"], f"{path}.host", names)}
        target = self.target(names, spec, path)
        return {"type": spec["type"], **self.arguments(target, _without(spec, "type"), path)}

    def arguments(self, target: Any, values: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Validate the arguments of a registered class; all unknown ones are reported."""
        unknown = [key for key in values if key not in registry.argument_names(target, values)]
        for key in unknown:
            place = _join(path, key)
            with self.noting(), self.at(place):
                registry.check_arguments(target, {key: values[key]}, place)
        with self.at(path):
            return registry.check_arguments(target, _without(values, *unknown), path)

    def learner(self, network: Mapping[str, Any]) -> None:
        """Check that the network of a training run has parameters."""
        from llie.archs import card_of

        if not card_of(registry.ARCH_REGISTRY.get(network["type"])).learned:
            raise self.error("network_g", f"{network['type']} is a fixed rule without parameters to train")

    def controls(self, values: dict[str, Any], network: Mapping[str, Any]) -> None:
        """Validate the test-time controls of `network_g`."""
        from llie.archs import check_controls, controls_of

        of_plug_in = controls_of(registry.ARCH_REGISTRY.get(network["type"])) if network.get("host") else ()
        rest = [name for name in values if name not in of_plug_in]
        with self.at("val.controls"):
            check_controls(registry.ARCH_REGISTRY.get((network.get("host") or network)["type"]), rest)

    def datasets(self, values: dict[str, Any], phase: str) -> dict[str, Any]:
        """Validate the data sets: `train`, its streams `train_*`, any number of `val`, `val_*`, `test`, `test_*`."""
        checked: dict[str, Any] = {}
        for name, spec in values.items():
            path = f"datasets.{name}"
            with self.noting():
                if not re.match(schema.DATASET_NAME, str(name)):
                    wanted = "train, val, test, train_..., val_... or test_..."
                    near = suggest(name, ("train", "val", "test"))
                    raise self.error(path, f"a data set must be named {wanted}.{near}")
                checked[name] = {}  # present, even if it contains a mistake
                checked[name] = self.dataset(spec, path, name)
        with self.noting():
            split = [name for name, spec in checked.items() if "split" in spec]
            if len(split) > 1:
                raise self.error(f"datasets.{split[1]}", f"only one validation set can be split off, and {split[0]} is")
            checked = self.of_phase(checked, phase)
        return checked

    def of_phase(self, checked: dict[str, Any], phase: str) -> dict[str, Any]:
        """The data sets of a phase; missing ones are an error."""
        if phase == "train" and "train" not in checked:
            raise self.error("datasets.train", "missing; training needs a training set")
        if phase == "test" and not any(name.startswith("test") for name in checked):
            own = {name: spec for name, spec in checked.items() if "split" not in spec}
            checked = {re.sub("^val", "test", name): spec for name, spec in own.items()}  # as in BasicSR
            if not any(name.startswith("test") for name in checked):
                raise self.error(
                    "datasets.test", "missing; a test needs a data set named test, test_..., val or val_..."
                )
        return checked

    def split(self, spec: dict[str, Any], path: str, role: str) -> dict[str, Any]:
        """Validate a validation set that is a part of the training set."""
        if not role.startswith("val"):
            raise self.error(path, "only val is split off the training set, as in datasets.val: {split: 0.05}")
        own = [key for key in spec if key not in schema.SPLIT]
        if own:  # perhaps from a file in _base_
            raise self.error(
                path,
                f"a part of the training set takes no {own[0]!r}; write {{_delete_: true, split: {spec['split']}}}",
            )
        checked = self.section(spec, schema.SPLIT, path)
        self.name(checked["name"], _join(path, "name"))
        if not 0 < checked["split"] < 1:
            raise self.error(_join(path, "split"), f"{checked['split']:g} is not between 0 and 1")
        return checked

    def dataset(self, spec: Any, path: str, role: str) -> dict[str, Any]:
        """Validate one data set: the keys of the loader and the arguments of its class."""
        if isinstance(spec, dict) and "split" in spec:
            return self.split(spec, path, role)
        name = self.typed(spec, path, "dataset")["type"]
        spec = {**spec, "type": schema.DATASET_ALIASES.get(name, name)}
        target = self.target(registry.DATASET_REGISTRY, spec, path)
        takes = registry.argument_names(target)
        for theirs, ours in schema.ARGUMENT_ALIASES.items():
            if theirs in spec and theirs not in takes and ours in takes and ours not in spec:
                spec = {ours if key == theirs else key: value for key, value in spec.items()}
        rules = {**schema.DATASET, **schema.loader_keys(role)}
        taken = registry.argument_names(target, spec.keys() - rules.keys())
        taken = [name for name in taken if name not in ("phase", "seed")]  # not in option files
        checked = self.section(spec, _without(rules, *taken), path, taken)
        self.name(checked["name"], _join(path, "name"))
        with self.at(path):
            return checked | registry.check_arguments(target, _only(checked, taken), path)

    def streams(self, names: Collection[str], model: str) -> None:
        """Check that the model uses all `datasets.train_*`."""
        known = [f"train_{name}" for name in getattr(registry.MODEL_REGISTRY.get(model), "streams", ())]
        for name in names:
            if name.startswith("train_") and name not in known:
                has = f"has the streams {', '.join(known)}" if known else "has no streams besides train"
                raise self.error(f"datasets.{name}", f"{model} {has}.{suggest(name, known)}")

    def metrics(self, values: dict[str, Any]) -> dict[str, Any]:
        """Validate `{name: {type, ...}}`; the default of `type` is the name."""
        from llie.metrics import create_metric

        checked = {}
        for name, spec in values.items():
            path = f"val.metrics.{name}"
            spec = {"type": name, **spec} if isinstance(spec, dict) else spec or {"type": name}
            with self.noting():
                checked[name] = self.typed(spec, path, "metric")
                with self.at(path):
                    create_metric(spec, name)
        return checked

    def protocols(self, names: list[str]) -> None:
        """Check the names of protocols."""
        if not names:
            raise self.error("val.protocols", "metrics need at least one protocol, for instance [rgb8]")
        from llie.metrics.protocols import protocol_steps

        for name in names:
            with self.at("val.protocols"):
                protocol_steps(name)

    def training(self, train: dict[str, Any]) -> None:
        """Validate the training section as a whole."""
        import torch

        from llie.engine.optimizers import create_optimizer
        from llie.engine.schedules import create_schedule

        with self.noting():
            if (train["total_iter"] is None) == (train["total_epochs"] is None):
                raise self.error(
                    "train.total_iter", "give either total_iter or total_epochs, and set the other to null"
                )
        losses = _loss_terms(train)
        with self.noting():
            if not losses:
                raise self.error("train.losses", "training needs a loss: a list of {type, weight, ...}")
        for path, spec in losses.items():
            with self.noting():
                self.loss(spec, path)
        for network in ("g", "d"):
            if (optimizer := train[f"optim_{network}"]) is not None:
                with self.noting(), self.at(f"train.optim_{network}"):
                    try:
                        create_optimizer([torch.nn.Parameter(torch.zeros(1))], optimizer, f"optim_{network}")
                    except ValueError as error:  # from torch, which checks the ranges
                        raise UserError(str(error)) from None
        for key in ("scheduler", "scheduler_d"):
            if train[key] is not None:
                with self.noting(), self.at(f"train.{key}"):
                    create_schedule(train[key], train["total_iter"] or 1)
        gamma = train["random_gamma"]
        if gamma is not None and not 0 < gamma[0] <= gamma[1]:
            raise self.error("train.random_gamma", f"{gamma} is not a range of exponents; write for example [0.6, 1.2]")
        covered = 0 if self.mistakes else sum(train["scheduler"].get("periods") or [])
        if 0 < covered < (train["total_iter"] or 0):
            held = f"the periods cover {covered} of {train['total_iter']} iterations; after them, the last rate is kept"
            self.warn(f"train.scheduler: {held}")

    def references(self, dataset: str, train: Mapping[str, Any]) -> None:
        """Check that no loss needs references if the training set has none."""
        from llie.losses import needs_reference

        if getattr(registry.DATASET_REGISTRY.get(dataset), "has_reference", True):
            return
        for path, spec in _loss_terms(train).items():
            used = path != "train.gan_opt" and spec.get("weight", spec.get("loss_weight")) != 0
            if used and needs_reference(registry.LOSS_REGISTRY.get(spec["type"]), spec.get("target")):
                free = [
                    name for name, loss in registry.LOSS_REGISTRY if not needs_reference(loss) and name != "GANLoss"
                ]
                raise self.error(
                    path,
                    f"{spec['type']} compares with the reference gt, which {dataset} does not have; compare with "
                    f"another output or the input (target: lq), or use losses without reference: {', '.join(free)}",
                )

    def loss(self, spec: Any, path: str) -> None:
        """Validate one loss term: its use, and the arguments of its class."""
        from llie.losses import LossTerm

        target = self.target(registry.LOSS_REGISTRY, self.typed(spec, path, "loss"), path)
        usage, taken = registry.argument_names(LossTerm)[1:], registry.argument_names(target)
        for key in spec:
            with self.noting():
                if key not in (known := {"type", "loss_weight", *usage, *taken}):
                    text = f"{spec['type']} has no such option.{suggest(key, sorted(known))}"
                    raise self.error(_join(path, key), text)
        with self.at(path):
            registry.check_arguments(LossTerm, {"loss": None} | _only(spec, usage), path)
            registry.check_arguments(target, _only(spec, taken), path)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _loss_terms(train: Mapping[str, Any]) -> dict[str, Any]:
    """All loss terms of a training section, by dotted path."""
    named = train["losses"].items() if isinstance(train["losses"], dict) else enumerate(train["losses"])
    old = {f"train.{key}": train[key] for key in schema.OLD_LOSS_KEYS if train.get(key)}
    return {f"train.losses.{name}": spec for name, spec in named} | old


def _only(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
