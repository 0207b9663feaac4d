"""Comparing a value from an option file with a Python type annotation, for option keys and constructor arguments."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", types.NoneType: "null"}
_JSON_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
_LISTS = (list, tuple, Sequence)
_FROM_YAML = (bool, int, float, str, list, tuple, dict, types.NoneType)


def fit(value: Any, kind: Any) -> Any:
    """Convert a value to a kind: `1e3` becomes 1000 where an integer is expected, and 1 becomes 1.0 for a float.

    An annotation that YAML cannot express (a class, `Any`) accepts every value, and a value that cannot come from YAML
    (a tensor) always fits.

    Raises:
        TypeError: the value does not fit.
    """
    if not isinstance(value, _FROM_YAML):
        return value
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(value, members)
    if origin is typing.Literal:
        if value not in members or isinstance(value, bool) != isinstance(members[members.index(value)], bool):
            raise TypeError
        return value
    kind = types.NoneType if kind is None else origin or kind
    if kind in _LISTS:
        return _fit_list(value, members, is_tuple=kind is tuple)
    if kind in (dict, Mapping):
        mapping = _checked(value, isinstance(value, dict))
        return {key: fit(item, members[1]) for key, item in mapping.items()} if members else mapping
    if kind is Path:
        return _checked(value, isinstance(value, str))
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in _WORDS:
        return _checked(value, isinstance(value, kind) and isinstance(value, bool) <= (kind is bool))
    return value


def describe(kind: Any) -> str:
    """The kind in words, for error messages: "an integer or null"."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(member) for member in _choices(members))
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(member) for member in members)
    kind = types.NoneType if kind is None else origin or kind
    if kind in _LISTS:
        return "a list" + (f" (each {describe(members[0])})" if members else "")
    if kind in (dict, Mapping):
        told = members and members[1] is not Any
        return "a mapping (key: value)" + (f" (each {describe(members[1])})" if told else "")
    return _WORDS.get(kind, "a string" if kind is Path else str(kind))


def json_type(kind: Any) -> dict[str, Any]:
    """The kind as a JSON Schema, `{"type": ["integer", "null"]}`; empty if `fit` accepts everything."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        schemas = [json_type(member) for member in _choices(members)]
        if all(schema.keys() == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas} if all(schemas) else {}
    if origin is typing.Literal:
        return {"enum": list(members)}
    kind = types.NoneType if kind is None else origin or kind
    if kind in _LISTS:
        if not members:
            return {"type": "array"}
        if kind is tuple and members[-1] is not Ellipsis:
            items = [json_type(member) for member in members]
            return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": json_type(members[0])}
    if kind in (dict, Mapping):
        return {"type": "object", **({"additionalProperties": json_type(members[1])} if members else {})}
    name = _JSON_NAMES.get(str if kind is Path else kind)
    return {"type": name} if name else {}


def _first_fit(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in _choices(kinds):
        try:
            return fit(value, kind)
        except TypeError:
            continue
    raise TypeError


def _choices(kinds: Sequence[Any]) -> Sequence[Any]:
    """The members that option files can give: only `float` of `float | Tensor`."""
    return [kind for kind in kinds if _is_plain(kind)] or kinds


def _is_plain(kind: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    return kind in (*_FROM_YAML, *_LISTS, Mapping, Path, typing.Union, types.UnionType, typing.Literal)


def _fit_list(value: Any, members: Sequence[Any], is_tuple: bool) -> Any:
    _checked(value, isinstance(value, list | tuple))
    if not members:
        return value
    kinds = members
    if not is_tuple or members[-1] is Ellipsis:
        kinds = [members[0]] * len(value)
    _checked(value, len(value) == len(kinds))
    return type(value)(fit(item, kind) for item, kind in zip(value, kinds, strict=True))


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise TypeError
    return value
