"""Loading option files: inheritance, overrides, aliases, validation and defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llie import registry
from llie.errors import UserError
from llie.options.checks import Checker
from llie.options.dialects import refuse_older_dialect, rename
from llie.options.files import dump_yaml, find_option_file, parse_yaml, read_inherited


def load_options(
    path: str | Path, overrides: Sequence[str] = (), phase: str = "train", debug: bool = False
) -> dict[str, Any]:
    """Read an option file and return all options, validated and with all defaults filled in.

    Nothing is built and no data set is read: names and arguments are compared with the registered classes.

    Args:
        path: YAML file in the BasicSR dialect; `llie/options/schema.py` lists the keys. A missing `options/...` is
            searched among the files that ship with llie.
        overrides: `a.b.c=value` or `a:b:c=value`, the value in YAML; items of lists by index.
        phase: "train", or "test", which needs no training section.
        debug: prefix the name with `debug_`, log at every iteration, validate and save every 8 iterations.

    Raises:
        UserError: any mistake; the message gives the file, the line and the dotted path of the key.
    """
    path = find_option_file(Path(path))
    values, origins = read_inherited(path)
    for override in overrides:
        _override(values, origins, override)
    refuse_older_dialect(values, path, phase)
    rename(values, origins)
    plugins = values.get("plugins") or []
    registry.load_plugins([plugins] if isinstance(plugins, str) else plugins, beside=path.parent)
    options = Checker(origins, str(path)).resolve(values, phase)
    if debug:
        options["name"] = "debug_" + options["name"]
        options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = 8
        options["logger"]["print_freq"] = 1
    return options


def dump_options(options: Mapping[str, Any]) -> str:
    """The options as YAML text; loading this text gives the same options."""
    return dump_yaml(dict(options))


def _override(values: dict[str, Any], origins: dict[str, str], override: str) -> None:
    keys, equals, text = override.partition("=")
    parts = [part.strip() for part in keys.split(":" if ":" in keys else ".")]
    if not equals or not all(parts):
        raise UserError(f"cannot read the override {override!r}; write it like train.optim_g.lr=1e-4")
    where = f"override {override!r}"
    value, _ = parse_yaml(text, where)
    target: Any = values
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        key = _index(target, part, where) if isinstance(target, list) else part
        if following is None:
            target[key] = value
        elif isinstance(target, dict) and target.get(key) is None:
            target[key] = {}
        target = target[key]
        if following is not None and not isinstance(target, dict | list):
            raise UserError(f"{where}: {part!r} is {target!r}, which has no {following!r}")
    dotted = ".".join(parts)
    for path in [path for path in origins if path.startswith(dotted + ".")]:
        del origins[path]  # their values were replaced
    origins[dotted] = where


def _index(items: list[Any], text: str, where: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise UserError(f"{where}: {text!r} is not an index of a list of {len(items)} (the first is 0)")
    return int(text)
