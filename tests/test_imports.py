"""The imports within llie, read from the sources: they point down, and nowhere in a circle."""

import ast
import itertools
from pathlib import Path

import llie

ROOT = Path(llie.__file__).parent

# From top to bottom. What shares a line does not import its neighbours.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"train", "test", "server", "web", "benchmark"},
    {"options", "evaluation", "inference", "history"},
    {"models", "bridge", "export"},
    {"metrics", "data", "engine"},
    {"losses"},
    {"weights", "strips"},
    {"archs"},
    {"ops", "registry", "pages"},
    {"errors"},
]


def module_names() -> dict[str, Path]:
    """`{"llie.options.load": path, "llie.options": path of its __init__.py, ...}`."""
    paths = {".".join(("llie", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imported(path: Path, modules) -> set[str]:
    """Every module of llie that a file imports, at its top, in a function, or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                found.add(member if member in modules else str(node.module))
                if member == "llie.__version__":  # llie/__init__.py runs before everything else
                    found.discard("llie")
    return {name for name in found if name.partition(".")[0] == "llie"}


def graph() -> dict[str, set[str]]:
    """`{module: what it imports}`. Whoever imports a module from outside of its package runs the package's __init__."""
    modules = module_names()
    arrows = {}
    for name, path in modules.items():
        arrows[name] = set()
        for target in imported(path, modules):
            parts = target.split(".")
            runs = {".".join(parts[:end]) for end in range(2, len(parts))}
            arrows[name] |= {target} | {package for package in runs if not f"{name}.".startswith(f"{package}.")}
    return arrows


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """One circle for each group of modules that reach each other."""
    reach = {name: reachable(name, arrows) for name in arrows}
    together = {frozenset({name, *(other for other in reach[name] if name in reach[other])}) for name in arrows}
    return [sorted(group) for group in together if len(group) > 1 or next(iter(group)) in arrows[next(iter(group))]]


def reachable(name: str, arrows: dict[str, set[str]]) -> set[str]:
    found, rest = set(), [name]
    while rest:
        new = arrows[rest.pop()] - found
        found |= new
        rest += new
    return found


def test_no_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) in ([["b", "c"], ["d"]], [["d"], ["b", "c"]])
    assert circles(graph()) == []


def test_imports_point_down():
    height = {room: -row for row, layer in enumerate(LAYERS) for room in layer}
    up = [
        f"{name} -> {target}"
        for name, targets in graph().items()
        for target in targets
        if name != "llie"  # the face of all: it hands names on
        for room, below in [(name.split(".")[1], target.split(".")[1])]
        if room != below and height[below] >= height[room]
    ]
    assert up == []


def test_every_room_has_its_layer():
    rooms = {name.split(".")[1] for name in module_names() if name != "llie"}
    assert rooms == set(itertools.chain(*LAYERS))


def test_few_loose_files():
    loose = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert loose <= {"cli", "train", "test", "registry", "errors", "bridge"}
