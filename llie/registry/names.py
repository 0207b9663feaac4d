"""Registries: names in option files -> classes; BasicSR's decorator, with lazy import, fall-backs and suggestions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llie.errors import UserError, suggest


class Fallback(NamedTuple):
    """The entries of another toolkit, of the same kind.

    Attributes:
        find: returns the entry of a name, or None; raises a `UserError` for a name that only this toolkit can have.
        names: all names, for suggestions.
    """

    find: Callable[[str], Any]
    names: Callable[[], list[str]]


class Registry:
    """Classes or functions by name; the modules of `package` are imported at the first lookup.

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
        self.fallbacks: list[Fallback] = []

    def register(self, obj: Any = None, name: str | None = None) -> Any:
        """Register a class or function, by default under its own name; a decorator with or without parentheses."""
        if obj is None:
            return lambda decorated: self.register(decorated, name)
        key = name or obj.__name__
        known = self._entries.get(key)
        if known is not None and _where(known) != _where(obj):
            raise UserError(
                f"the {self.name} {key!r} is registered twice, by {_where(known)} and {_where(obj)}; rename one"
            )
        self._entries[key] = obj
        return obj

    def get(self, name: str) -> Any:
        """The entry of this name, here or in the first fall-back that has it.

        Raises:
            UserError: unknown name; the message lists similar ones.
        """
        if name not in self._entries:
            self._discover()
        if name in self._entries:
            return self._entries[name]
        for fallback in self.fallbacks:
            found = fallback.find(name)
            if found is not None:
                return found
        known = [*self._entries, *(theirs for fallback in self.fallbacks for theirs in fallback.names())]
        raise UserError(
            f"no {self.name} is called {name!r}.{suggest(name, known)} "
            f"Known: {', '.join(sorted(self._entries)) or 'none'}"
        )

    def __contains__(self, name: object) -> bool:
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
