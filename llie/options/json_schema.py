"""A JSON Schema of option files, from `schema.py` and the registered classes, for completion and checks in editors.

It requires no key, because any may come from a `_base_`, and accepts unknown types, because plug-ins add them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llie.archs import card_of
from llie.engine.schedules import SCHEDULES
from llie.losses import LossTerm
from llie.metrics.protocols import PROTOCOLS
from llie.options import schema
from llie.options.schema import ABSENT, REQUIRED, Key, Section
from llie.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    DISCRIMINATOR_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    argument_names,
)
from llie.registry.arguments import annotations_of
from llie.registry.kinds import json_type

Json = dict[str, Any]


def json_schema() -> Json:
    """The schema of an option file, draft 7, as plain data."""
    base = {"description": "option files to inherit from, relative to this one; later ones win"}
    properties = {"_base_": base | json_type(str | list[str] | None), **_section(schema.SCHEMA)["properties"]}
    _place_typed(properties)
    for theirs, ours in schema.KEY_ALIASES.items():
        _add_alias(properties, theirs.split("."), ours.split("."))
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "llie option file"}
    return _with_delete(head | _closed(properties) | {"definitions": _definitions()})


def _place_typed(properties: Json) -> None:
    """Replace mappings with keys that depend on a `type` by references to `definitions`."""
    train, val = properties["train"]["properties"], properties["val"]["properties"]
    models = [*MODEL_REGISTRY.keys(), *schema.MODEL_ALIASES]
    properties["model_type"] |= {"type": ["string", "null"], "examples": models}
    properties["network_g"] |= _also("network")
    properties["network_d"] |= _also("discriminator")
    properties["datasets"] |= {
        "patternProperties": {schema.DATASET_NAME: _reference("dataset")},
        "additionalProperties": False,
    }
    for key in ("optim_g", "optim_d"):
        train[key] |= _also("optimizer")
    for key in ("scheduler", "scheduler_d"):
        train[key] |= _also("schedule")
    loss = _reference("loss")
    train["losses"] |= {"items": loss, "additionalProperties": loss}
    for key in schema.OLD_LOSS_KEYS:
        train[key] |= _also("loss")
    val["metrics"] |= {"additionalProperties": _reference("metric")}
    val["protocols"] |= {"items": {"enum": list(PROTOCOLS)}}


def _definitions() -> Json:
    lr = {"lr": {"type": "number", "description": "learning rate"}}
    optimizer = {"properties": {"type": {"type": "string", "examples": ["Adam", "AdamW", "SGD"]}} | lr}
    first_step = {"enum": [0, 1], "description": "1: the schedule advances before an iteration instead of after it"}
    better = {"enum": ["higher", "lower"], "description": "which values are better; must be right for the metric"}
    usage = _arguments(LossTerm, leave_out=["loss"])
    usage["loss_weight"] = usage["weight"] | {"deprecationMessage": "another name for weight"}
    presets = {preset: name for name, network in ARCH_REGISTRY for preset in card_of(network).presets}
    networks = {"host": _reference("network")}
    loader = _section({**schema.DATASET, **schema.TRAIN_DATASET})["properties"]
    pixels = ("pred", "gt", "lq", "protocol")
    dataset = _typed("dataset", DATASET_REGISTRY, loader, schema.DATASET_ALIASES, leave_out=("phase", "seed"))
    dataset["dataset"]["properties"]["split"] = _section(schema.SPLIT)["properties"]["split"]  # without a type
    return {
        "optimizer": {"type": ["object", "null"], **optimizer},
        **_typed("schedule", SCHEDULES.items(), {"first_step": first_step}),
        **_typed("network", ARCH_REGISTRY, aliases=presets, replace=networks),
        **_typed("discriminator", DISCRIMINATOR_REGISTRY),
        **_typed("loss", LOSS_REGISTRY, usage),
        **_typed("metric", METRIC_REGISTRY, {"better": better}, leave_out=pixels),
        **dataset,
    }


def _typed(
    kind: str,
    entries: Iterable[tuple[str, Callable[..., Any]]],
    shared: Mapping[str, Json] = {},
    aliases: Mapping[str, str] = {},
    leave_out: Iterable[str] = (),
    replace: Mapping[str, Json] = {},
) -> Json:
    """The definition of `{type: NAME, **arguments}`, which refers to one further definition per name.

    Args:
        kind: its name in `definitions`.
        entries: name -> class or function, whose arguments become the allowed keys.
        shared: further keys of all entries.
        aliases: further name -> name.
        leave_out: arguments that are not in option files.
        replace: schemas of arguments that are more precise than their annotations.
    """
    targets = dict(iter(entries))
    names = {name: name for name in targets} | dict(aliases)
    choices = [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": _reference(f"{kind}.{target}"),
        }
        for name, target in sorted(names.items())
    ]
    known = {"description": f"name of a registered {kind}", "anyOf": [{"enum": sorted(names)}, {"type": "string"}]}
    definitions: Json = {kind: {"type": ["object", "null"], "properties": {"type": known}, "allOf": choices}}
    for name, target in sorted(targets.items()):
        own = _arguments(target, leave_out, targets)
        own |= {key: value for key, value in replace.items() if key in own}
        definitions[f"{kind}.{name}"] = {
            "description": _summary(target),
            **_closed({"type": True} | dict(shared) | own),
        }
    return definitions


def _arguments(
    target: Callable[..., Any], leave_out: Iterable[str] = (), others: Mapping[str, Callable[..., Any]] = {}
) -> dict[str, Json]:
    """A schema for each argument: its kind, its default, and its meaning from the docstring or one it refers to."""
    kinds, parameters = annotations_of(target), inspect.signature(target).parameters
    texts: dict[str, str] = {}
    for name in re.findall(r"`(\w+)`", _documentation(target)):
        texts |= _argument_texts(others[name]) if name in others else {}
    texts |= _argument_texts(target)
    properties: dict[str, Json] = {}
    for name in argument_names(target):
        if name in leave_out:
            continue
        properties[name] = {"description": texts[name]} if name in texts else {}
        properties[name] |= json_type(kinds.get(name, Any))
        default = parameters[name].default
        if isinstance(default, bool | int | float | str | tuple | list):
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
    return properties


def _section(rules: Section) -> Json:
    return _closed({key: _section(rule) if isinstance(rule, Mapping) else _key(rule) for key, rule in rules.items()})


def _key(rule: Key) -> Json:
    if rule.no_effect is not None:
        return {"deprecationMessage": f"without effect: {rule.no_effect}"}
    described: Json = {"description": rule.about} | json_type(rule.kind | None)  # null asks for the default
    if rule.default not in (None, REQUIRED, ABSENT):
        described["default"] = rule.default
    limits = {"minimum": rule.least, "maximum": rule.most}
    return described | {name: limit for name, limit in limits.items() if limit is not None}


def _closed(properties: Json) -> Json:
    """A mapping with only these keys."""
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _with_delete(part: Any) -> Any:
    """The same schema with `_delete_` allowed in every mapping that restricts its keys."""
    if isinstance(part, list):
        return [_with_delete(item) for item in part]
    if not isinstance(part, dict):
        return part
    part = {key: _with_delete(value) for key, value in part.items()}
    if "additionalProperties" in part:
        delete = {"type": "boolean", "description": "true: replace the inherited mapping instead of merging with it"}
        part["properties"] = part.get("properties", {}) | {"_delete_": delete}
    return part


def _reference(definition: str) -> Json:
    return {"$ref": f"#/definitions/{definition}"}


def _also(definition: str) -> Json:
    """A reference in a schema with other keys; draft 7 would ignore these beside a plain reference."""
    return {"allOf": [_reference(definition)]}


def _add_alias(properties: Json, theirs: list[str], ours: list[str]) -> None:
    meant = _holder(properties, ours).get(ours[-1])
    if meant is not None:
        if ".".join(theirs) in schema.VALUE_ALIASES:
            meant = {"type": ["boolean", "null"]}
        note = {"deprecationMessage": f"another name for {'.'.join(ours)}"}
        _holder(properties, theirs)[theirs[-1]] = meant | note


def _holder(properties: Json, path: list[str]) -> Json:
    for section in path[:-1]:
        properties = properties[section].get("properties", {})
    return properties


def _summary(target: Callable[..., Any]) -> str:
    return _documentation(target).partition("\n\n")[0].replace("\n", " ")


def _argument_texts(target: Callable[..., Any]) -> dict[str, str]:
    """The description of each argument in the documentation (Google style)."""
    texts = {}
    for section in re.findall(r"^Args:\n((?: {4}.*\n|\n)+)", _documentation(target), re.MULTILINE):
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            texts[name] = re.sub(r"\s+", " ", text)
    return texts


def _documentation(target: Callable[..., Any]) -> str:
    """The docstrings of a class and of its constructor, or of a function."""
    documented = (target, target.__init__) if inspect.isclass(target) else (target,)
    return "".join(inspect.cleandoc(getattr(each, "__doc__", None) or "") + "\n" for each in documented)
