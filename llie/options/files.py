"""Reading option files: safe YAML with `1e-4` as a number, inheritance by `_base_`, and the line of each value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llie.errors import UserError

_BUILT = Path(__file__).resolve().with_name("shipped")  # the option files in a built package
SHIPPED = _BUILT if _BUILT.is_dir() else Path(__file__).resolve().parents[2] / "options"


class _Loader(yaml.SafeLoader):
    """Plain data only; a duplicate key is an error; `1e-4` is a number, as in YAML 1.2 (1.1 requires a dot)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"duplicate key {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values on one line, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, data: Any) -> yaml.SequenceNode:
    plain = not any(isinstance(item, dict | list | tuple) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)


def parse_yaml(text: str, where: str) -> tuple[Any, dict[str, str]]:
    """The data of a YAML text, and `{dotted path: "file:line"}` for all of it.

    Raises:
        UserError: invalid YAML, a duplicate key, or a tag that is not plain data; the message contains the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        return loader.construct_document(node), {path: f"{where}:{line}" for path, line in _lines(node)}
    except yaml.constructor.ConstructorError as error:
        tag = " (option files may contain plain data only, no Python objects)" if "tag" in str(error.problem) else ""
        raise UserError(f"{where}{_at(error)}: {error.problem}{tag}") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_at(error)}: invalid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise UserError(f"{where}: invalid YAML: {error}") from None


def dump_yaml(data: Any) -> str:
    """YAML text, in the order of the keys; reading it gives the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def find_option_file(path: Path) -> Path:
    """The file of this name, or if it does not exist, that which ships with llie (`options/train/demo.yml`)."""
    if path.exists() or path.parts[:1] != ("options",):
        return path
    shipped = SHIPPED.joinpath(*path.parts[1:])
    return shipped if shipped.is_file() or not path.parent.is_dir() else path  # the error message lists its folder


def read_inherited(path: Path, chain: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """An option file merged over its `_base_` files (relative to it; later ones win), and the origins of all values.

    Raises:
        UserError: a file is missing, unreadable or not a mapping, or inherits from itself.
    """
    path = Path(os.path.normpath(path))  # a/b/../c.yml is shown as a/c.yml
    if path in chain:
        raise UserError("_base_ is circular: " + " -> ".join(str(p) for p in (*chain, path)))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        origin = f" (named in _base_ of {chain[-1]})" if chain else ""
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read the option file {path}{origin}: {reason}{_neighbours(path)}") from None
    data, lines = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        what = "empty" if data is None else "a list" if isinstance(data, list) else repr(data)
        raise UserError(f"{path}: an option file must be a mapping (key: value), not {what}")
    bases = data.pop("_base_", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{lines['_base_']}: _base_ must be a file name or a list of file names")
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for base in bases:
        inherited, inherited_lines = read_inherited(path.parent / base, (*chain, path))
        merged = merge(merged, inherited)
        origins |= inherited_lines
    return merge(merged, data), origins | lines


def merge(base: Any, over: Any) -> Any:
    """Merge `over` into a copy of `base`: mappings key by key, everything else is replaced.

    A mapping with `_delete_: true` replaces the inherited one completely.
    """
    if not isinstance(over, dict):
        return [merge(None, item) for item in over] if isinstance(over, list) else over
    keep = isinstance(base, dict) and not over.get("_delete_", False)
    merged = dict(base) if keep else {}
    for key, value in over.items():
        if key != "_delete_":
            merged[key] = merge(merged.get(key), value)
    return merged


def _lines(node: yaml.Node, path: str = "") -> Iterator[tuple[str, int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else str(key.value)
            yield from _lines(value, name)
            yield name, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, f"{path}.{index}")


def _at(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}" if mark else ""


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(file.name for file in path.parent.glob("*.yml"))
    return f". In that folder: {', '.join(names)}" if names else ""
