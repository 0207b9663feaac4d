"""Merged options -> checked options: every key known, every kind right, every name registered, every default filled."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

from llie import registry, schema
from llie.errors import UserError, suggest
from llie.kinds import describe, fit
from llie.schema import ABSENT, REQUIRED, Key, Section

logger = logging.getLogger(__name__)

_DATASET_NAME = re.compile(r"(train|val|test)(_\w+)?")


class Checker:
    """Walks the options beside the schema and the registered classes.

    Args:
        origins: dotted path -> "file:line", for the error messages.
        file: the option file itself, for what is missing from it.
    """

    def __init__(self, origins: Mapping[str, str], file: str):
        self.origins = origins
        self.file = file
        self.without_effect: dict[str, list[str]] = {}

    def resolve(self, values: dict[str, Any], phase: str) -> dict[str, Any]:
        """All options of a run, for `phase` "train" or "test"."""
        options = self.section(values, schema.SCHEMA, "")
        model = schema.MODEL_ALIASES.get(options["model_type"], options["model_type"])
        options["model_type"] = model
        self.registered(registry.MODEL_REGISTRY, model, "model_type")
        if isinstance(options["num_gpu"], list):
            options["num_gpu"] = len(options["num_gpu"])
        options["datasets"] = self.datasets(options["datasets"], phase)
        for network in ("network_g", "network_d"):
            if options[network] is not None:
                options[network] = self.network(options[network], network)
        options["val"]["metrics"] = self.metrics(options["val"]["metrics"] or {})
        if phase == "train":
            self.training(options["train"])
        if self.without_effect:
            ignored = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in self.without_effect.items())
            logger.warning("%s: accepted without effect: %s", self.file, ignored)
        return options

    def error(self, path: str, message: str) -> UserError:
        """A `UserError` that begins with where the key stands, and its dotted path."""
        place = path
        while place and place not in self.origins:
            place = place.rpartition(".")[0]
        return UserError(f"{self.origins[place] if place else self.file}: {path}: {message}")

    def section(self, values: Any, rules: Section, path: str, others: Collection[str] = ()) -> dict[str, Any]:
        """One mapping with defaults filled; keys in `others` belong to someone else and pass as they are."""
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise self.error(path, f"a mapping (key: value) is wanted here, not {values!r}")
        known = {**rules, **dict.fromkeys(others)}
        for key in values:
            if key not in known:
                raise self.error(_join(path, key), f"there is no such option.{suggest(key, known)}")
        checked: dict[str, Any] = {}
        for key, rule in rules.items():
            if isinstance(rule, Mapping):
                checked[key] = self.section(values.get(key), rule, _join(path, key))
            elif rule.no_effect is not None:
                if values.get(key):
                    self.without_effect.setdefault(rule.no_effect, []).append(_join(path, key))
            else:
                value = self.value(values.get(key), rule, _join(path, key))
                if value is not ABSENT:
                    checked[key] = value
        return checked | {key: value for key, value in values.items() if key not in rules}

    def value(self, value: Any, rule: Key, path: str) -> Any:
        """One value of the right kind; `null` means not given."""
        if value is None:
            if rule.default is REQUIRED:
                raise self.error(path, f"this is missing; {describe(rule.kind)} is wanted")
            return copy.deepcopy(rule.default) if rule.default is not ABSENT else ABSENT
        try:
            value = fit(value, rule.kind)
        except TypeError:
            raise self.error(path, f"{describe(rule.kind)} is wanted here, not {value!r}") from None
        if rule.least is not None and isinstance(value, int | float) and not value >= rule.least:
            raise self.error(path, f"{value} is too small; at least {rule.least:g} is wanted")
        return value

    def registered(self, names: registry.Registry, name: str, path: str) -> Any:
        """The class of that name; a miss names the key that asked for it."""
        try:
            return names.get(name)
        except UserError as error:
            raise self.error(path, str(error)) from None

    def arguments(self, target: Any, arguments: Mapping[str, Any], path: str) -> None:
        """Check that `target` takes these arguments."""
        try:
            registry.check_arguments(target, arguments, path)
        except UserError as error:
            raise self.error(path, str(error).removeprefix(f"{path}: ")) from None

    def component(self, names: registry.Registry, spec: Any, path: str) -> dict[str, Any]:
        """`{type: NAME, **arguments}` whose arguments all go to the constructor."""
        if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
            raise self.error(_join(path, "type"), f"this is missing; it names a registered {names.name}")
        target = self.registered(names, spec["type"], _join(path, "type"))
        self.arguments(target, {key: value for key, value in spec.items() if key != "type"}, path)
        return spec

    def network(self, spec: dict[str, Any], path: str) -> dict[str, Any]:
        """A network's class and arguments; the name of a preset stands for the arguments on the network's card."""
        from llie.archs import card_of  # imports torch, which an error in the file above need not wait for

        for registered, network in registry.ARCH_REGISTRY:
            presets = card_of(network).presets
            if spec.get("type") in presets:
                spec = {**presets[spec["type"]], **spec, "type": registered}
        return self.component(registry.ARCH_REGISTRY, spec, path)

    def datasets(self, values: dict[str, Any], phase: str) -> dict[str, Any]:
        """All data sets: `train`, and any number of `val`, `val_*`, `test`, `test_*`."""
        checked = {}
        for name, spec in values.items():
            path = f"datasets.{name}"
            if not _DATASET_NAME.fullmatch(str(name)):
                wanted = "train, val, test, or val_... and test_... for further ones"
                raise self.error(path, f"a data set is called {wanted}.{suggest(name, ('train', 'val', 'test'))}")
            checked[name] = self.dataset(spec, path, is_training=name.startswith("train"))
        if phase == "train" and "train" not in checked:
            raise self.error("datasets.train", "training needs a training set")
        if phase == "test" and all(name.startswith("train") for name in checked):
            raise self.error("datasets.test", "testing needs a data set called test, test_..., val or val_...")
        return checked

    def dataset(self, spec: Any, path: str, is_training: bool) -> dict[str, Any]:
        """One data set: keys of the loader beside arguments of its class."""
        if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
            raise self.error(_join(path, "type"), "this is missing; it names a registered dataset")
        spec = {**spec, "type": schema.DATASET_ALIASES.get(spec["type"], spec["type"])}
        target = self.registered(registry.DATASET_REGISTRY, spec["type"], _join(path, "type"))
        rules = {**schema.DATASET, **(schema.TRAIN_DATASET if is_training else schema.EVALUATION_DATASET)}
        taken = registry.argument_names(target)
        checked = self.section(spec, {key: rule for key, rule in rules.items() if key not in taken}, path, taken)
        self.arguments(target, {key: value for key, value in checked.items() if key in taken}, path)
        return checked

    def metrics(self, values: dict[str, Any]) -> dict[str, Any]:
        """`{name: {type, ...}}`; the name is free."""
        checked = {}
        for name, spec in values.items():
            spec = {"type": name, **(spec or {})}
            spec["type"] = schema.METRIC_ALIASES.get(spec["type"], spec["type"])
            checked[name] = self.component(registry.METRIC_REGISTRY, spec, f"val.metrics.{name}")
        return checked

    def training(self, train: dict[str, Any]) -> None:
        """What a training section means as a whole."""
        if (train["total_iter"] is None) == (train["total_epochs"] is None):
            raise self.error("train.total_iter", "give either total_iter or total_epochs")
        if not train["losses"] and not any(key in train for key in schema.OLD_LOSS_KEYS):
            raise self.error("train.losses", "training needs a loss: a list of {type, weight, ...}")
        named = train["losses"].items() if isinstance(train["losses"], dict) else enumerate(train["losses"])
        for name, spec in named:
            self.loss(spec, f"train.losses.{name}")
        for network in ("g", "d"):
            if train[f"optim_{network}"] is not None:
                self.optimiser(train[f"optim_{network}"], f"train.optim_{network}")
        self.scheduler(train)

    def loss(self, spec: Any, path: str) -> None:
        """One loss term: how it is used, and the arguments of its class."""
        if not isinstance(spec, dict):
            raise self.error(path, f"a loss is a mapping {{type, weight, ...}}, not {spec!r}")
        target = self.registered(registry.LOSS_REGISTRY, spec.get("type", ""), _join(path, "type"))
        taken = registry.argument_names(target)
        self.section(spec, {key: rule for key, rule in schema.LOSS_TERM.items() if key not in taken}, path, taken)
        self.arguments(target, {key: value for key, value in spec.items() if key in taken}, path)

    def optimiser(self, spec: dict[str, Any], path: str) -> None:
        """An optimiser of `torch.optim` by its name there."""
        from torch import optim

        known = [name for name, entry in vars(optim).items() if isinstance(entry, type) and name != "Optimizer"]
        name = spec.get("type", "")
        if name not in known:
            raise self.error(f"{path}.type", f"torch.optim has no {name!r}.{suggest(name, known)}")
        arguments = {key: value for key, value in spec.items() if key != "type"}
        self.arguments(getattr(optim, name), {"params": [], **arguments}, path)

    def scheduler(self, train: dict[str, Any]) -> None:
        """A schedule that exists; the periods of a cyclic one should last as long as the training."""
        from llie.engine.schedules import create_schedule

        try:
            create_schedule(train["scheduler"], train["total_iter"] or 1)
        except UserError as error:
            raise self.error("train.scheduler", str(error).removeprefix("scheduler: ")) from None
        periods, total = train["scheduler"].get("periods"), train["total_iter"]
        if periods and total and sum(periods) < total:
            logger.warning(
                "%s: train.scheduler: the periods last %d of %d iterations; after them the last learning rate is held",
                self.file, sum(periods), total,
            )  # fmt: skip


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
