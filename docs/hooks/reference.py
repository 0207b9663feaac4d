"""MkDocs hook: writes the tables of the guide that come from the code.

A line `<!-- table: NAME -->` in a page is replaced by that table. So the guide lists every option, class, protocol and
recipe as the code has it, and cannot fall behind.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import griffe

from llie import registry
from llie.archs import card_of
from llie.engine.schedules import SCHEDULES
from llie.inference.catalogue import parameters
from llie.metrics.protocols import PROTOCOLS
from llie.options.schema import ABSENT, DATASET, KEY_ALIASES, REQUIRED, SCHEMA, SPLIT, TRAIN_DATASET, Key
from llie.registry.kinds import describe

REPOSITORY = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"^<!-- table: (?P<words>[\w ./-]+) -->$", re.MULTILINE)

logging.getLogger("griffe").setLevel(logging.ERROR)  # it is strict about continuation lines; mkdocstrings checks them


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return expand(markdown)


def expand(markdown: str) -> str:
    """A page's Markdown with every marker replaced by its table.

    Raises:
        KeyError: there is no table of that name.
    """

    def table(match: re.Match[str]) -> str:
        name, *words = match["words"].split()
        return TABLES[name](*words)

    return MARKER.sub(table, markdown)


def options(section: str = "") -> str:
    """The keys of one section of an option file ("" is the top level), that have an effect."""
    keys = _section(section)
    rows = [
        [f"`{name}`", _kind(key.kind), _default(key.default), _inline(key.about)]
        for name, key in keys.items()
        if isinstance(key, Key) and key.no_effect is None
    ]
    return _table(["key", "value", "default", "meaning"], rows)


def ignored() -> str:
    """Keys of other toolkits that are accepted and change nothing, with the reason."""
    rows = [
        [f"`{path}`", _inline(key.no_effect)]
        for path, key in [*_walk(SCHEMA), *((f"datasets.*.{name}", key) for name, key in DATASET.items())]
        if isinstance(key, Key) and key.no_effect
    ]
    return _table(["key", "why it changes nothing"], rows)


def aliases() -> str:
    """Other toolkits' names of keys."""
    return _table(["their name", "name here"], [[f"`{a}`", f"`{b}`"] for a, b in KEY_ALIASES.items()])


def classes(which: str) -> str:
    """Every class or function of a registry with its arguments, each under a heading of its own."""
    entries: dict[int, tuple[list[str], Any]] = {}
    for name, target in getattr(registry, f"{which.upper()}_REGISTRY"):
        entries.setdefault(id(target), ([], target))[0].append(name)  # some go by two names
    return "\n\n".join(_entry(names, target) for names, target in entries.values())


def schedules() -> str:
    """Every learning-rate schedule."""
    entries: dict[int, tuple[list[str], Any]] = {}
    for name, target in SCHEDULES.items():
        entries.setdefault(id(target), ([], target))[0].append(name)
    return "\n\n".join(_entry(names, target) for names, target in entries.values())


def protocols() -> str:
    """Every evaluation protocol and its steps."""
    rows = []
    for name, steps in PROTOCOLS.items():
        what = "; ".join(_inline(inspect.getdoc(step)).split(".")[0].split(":")[0] for step in steps)
        rows.append([f"`{name}`", what])
    return _table(["protocol", "steps, in this order"], rows)


def networks() -> str:
    """Every network: name, parameters, paper, presets and controls."""
    rows = []
    for name, network in registry.ARCH_REGISTRY:
        card = card_of(network)
        rows.append([f"`{name}`", card.paper, parameters(name), ", ".join(f"`{p}`" for p in card.presets)])
    return _table(["name", "paper", "parameters", "presets"], rows)


def recipes(phase: str) -> str:
    """Every option file of a phase with the first lines that describe it."""
    rows = []
    for path in sorted((REPOSITORY / "options" / phase).rglob("*.yml"), key=lambda p: (len(p.parts), p)):
        comment = re.match(r"(?:#[^\n]*\n)+", path.read_text(encoding="utf-8"))
        text = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        rows.append([f"`{path.relative_to(REPOSITORY).as_posix()}`", _inline(text)])
    return _table(["file", "what it does"], rows)


TABLES: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (options, ignored, aliases, classes, schedules, protocols, networks, recipes)
}


def _section(path: str) -> Mapping[str, Any]:
    special = {"datasets": DATASET, "datasets.train": TRAIN_DATASET, "datasets.val": SPLIT}
    if path in special:
        return special[path]
    keys: Any = SCHEMA
    for part in filter(None, path.split(".")):
        keys = keys[part]
    return keys


def _walk(section: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for name, key in section.items():
        if isinstance(key, Mapping):
            yield from _walk(key, f"{path}{name}.")
        else:
            yield path + name, key


def _entry(names: list[str], target: Any) -> str:
    """Heading, summary and arguments of one registered class or function."""
    title = " ".join(f"`{name}`" for name in names)
    function = target.__init__ if inspect.isclass(target) else target
    documented = _arguments(inspect.getdoc(target)) | _arguments(inspect.getdoc(function))
    rows = []
    for parameter in inspect.signature(target).parameters.values():
        if parameter.name in _GIVEN or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        kind = str(parameter.annotation).removeprefix("<class '").removesuffix("'>").replace("typing.", "")
        rows.append(
            [f"`{parameter.name}`", f"`{kind}`", _default(default), _inline(documented.get(parameter.name, ""))]
        )
    table = _table(["argument", "type", "default", "meaning"], rows) if rows else "No arguments."
    return f"### {title}\n\n{_summary(target)}\n\n{table}"


# Arguments that the toolkit fills in by itself.
_GIVEN = ("pred", "gt", "protocol", "phase", "seed")


def _summary(target: Any) -> str:
    text = inspect.getdoc(target) or ""
    return _inline(re.split(r"\n\s*\n|\n(?:Args|Returns|Raises|Example):", text)[0])


def _arguments(docstring: str | None) -> dict[str, str]:
    found = {}
    for section in griffe.Docstring(docstring or "").parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.parameters:
            found |= {argument.name: argument.description for argument in section.value}
    return found


def _kind(kind: Any) -> str:
    return "anything" if kind is Any else describe(kind).replace("|", "\\|")


def _default(default: Any) -> str:
    if default is REQUIRED:
        return "required"
    if default is ABSENT:
        return ""
    text = {None: "null", True: "true", False: "false"}.get(default) if isinstance(default, bool | None) else None
    return f"`{text or repr(default)}`"


def _inline(text: str | None) -> str:
    """Text for a cell of a table; what is in braces is a piece of YAML."""
    line = " ".join((text or "").split()).replace("|", "\\|")
    return line if "`" in line else re.sub(r"\{[^{}]*(?:\{[^{}]*\})*[^{}]*\}", r"`\g<0>`", line)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
