"""Names in option files -> classes: BasicSR's registries and decorator, with lazy discovery and suggestions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llie.errors import UserError, suggest


class Registry:
    """Classes or functions by name; the modules of `package` are imported at the first look-up.

    Example:
        >>> SHAPES = Registry("shape")
        >>> @SHAPES.register()
        ... class Square: ...
        >>> SHAPES.get("Square").__name__
        'Square'
    """

    def __init__(self, name: str, package: str | None = None):
        self.name = name
        self._package = package
        self._entries: dict[str, Any] = {}
        self._discovered = package is None

    def register(self, obj: Any = None, name: str | None = None) -> Any:
        """Register a class or function under its own name; with or without parentheses, or as a call."""
        if obj is None:
            return lambda decorated: self.register(decorated, name)
        key = name or obj.__name__
        known = self._entries.get(key)
        if known is not None and _where(known) != _where(obj):
            raise UserError(f"two {self.name}s are called {key!r}: {_where(known)} and {_where(obj)}; rename one")
        self._entries[key] = obj
        return obj

    def get(self, name: str) -> Any:
        """The entry of that name.

        Raises:
            UserError: nothing bears that name; the message lists the nearest names.
        """
        if name not in self._entries:
            self._discover()
        if name in self._entries:
            return self._entries[name]
        raise UserError(
            f"no {self.name} is called {name!r}.{suggest(name, self._entries)} "
            f"Known: {', '.join(sorted(self._entries)) or 'none'}"
        )

    def __contains__(self, name: str) -> bool:
        self._discover()
        return name in self._entries

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._discover()
        return iter(sorted(self._entries.items()))

    def keys(self) -> list[str]:
        """All names, sorted."""
        return [name for name, _ in self]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(str(self._package))
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


def _where(obj: Any) -> str:
    try:
        return f"{inspect.getfile(obj)}:{obj.__qualname__}"
    except (TypeError, OSError):
        return repr(obj)


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Check that `target` can be called with these keyword arguments, before anything is built.

    Raises:
        UserError: an argument is unknown (with the nearest name) or a required one is missing.
    """
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for argument in arguments:
        if argument not in named:
            raise UserError(
                f"{where}: {target.__name__} takes no argument {argument!r}.{suggest(argument, named)} "
                f"It takes: {', '.join(named) or 'none'}"
            )
    for argument, parameter in named.items():
        if parameter.default is parameter.empty and argument not in arguments:
            raise UserError(f"{where}: {target.__name__} needs the argument {argument!r}")


def build(registry: Registry, options: Mapping[str, Any], where: str = "", **extra: Any) -> Any:
    """Build what `{type: NAME, **arguments}` describes; `extra` are arguments that no option file gives."""
    where = where or registry.name
    if "type" not in options:
        raise UserError(f"{where}: 'type' is missing (the name of a registered {registry.name})")
    target = registry.get(options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"} | extra
    check_arguments(target, arguments, where)
    return target(**arguments)


ARCH_REGISTRY = Registry("network", "llie.archs")
LOSS_REGISTRY = Registry("loss", "llie.losses")
METRIC_REGISTRY = Registry("metric", "llie.metrics")
DATASET_REGISTRY = Registry("dataset", "llie.data")
MODEL_REGISTRY = Registry("model", "llie.models")
