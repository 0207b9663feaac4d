"""Names in option files -> classes: BasicSR's registries and decorator, with lazy discovery and suggestions."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llie import bridge
from llie.errors import UserError, suggest
from llie.kinds import describe, fit


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
            raise UserError(
                f"the {self.name} {key!r} is registered twice, by {_where(known)} and {_where(obj)}; rename one"
            )
        self._entries[key] = obj
        return obj

    def get(self, name: str) -> Any:
        """The entry of that name: ours first, then BasicSR's; `basicsr/NAME` asks for theirs alone.

        Raises:
            UserError: nothing bears that name; the message lists the nearest names.
        """
        if name not in self._entries:
            self._discover()
        if name in self._entries:
            return self._entries[name]
        theirs = bridge.find(self.name, name)
        if theirs is not None:
            return theirs
        raise UserError(
            f"no {self.name} is called {name!r}.{suggest(name, [*self._entries, *bridge.names(self.name)])} "
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


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check that `target` can be called with these keyword arguments, before anything is built.

    Returns:
        The arguments as the annotations want them: 1e3 is 1000 where a whole number is wanted.

    Raises:
        UserError: an argument is unknown (with the nearest name), of the wrong kind, or a required one is missing.
    """
    named = argument_names(target, arguments)
    for argument in arguments:
        if argument not in named:
            raise UserError(
                f"{where}: {target.__name__} takes no argument {argument!r}.{suggest(argument, named)} "
                f"It takes: {', '.join(named) or 'none'}"
            )
    for argument, parameter in inspect.signature(target).parameters.items():
        if argument in named and parameter.default is parameter.empty and argument not in arguments:
            raise UserError(f"{where}: {target.__name__} needs the argument {argument!r}")
    kinds = _annotations(target)
    fitted = {}
    for argument, value in arguments.items():
        try:
            fitted[argument] = fit(value, kinds.get(argument, Any))
        except TypeError:
            raise UserError(
                f"{where}.{argument}: {target.__name__} wants {describe(kinds[argument])} here, not {value!r}"
            ) from None
    return fitted


def argument_names(target: Callable[..., Any], given: Iterable[str] = ()) -> list[str]:
    """Names of the keyword arguments that `target` takes; all that are `given` when it has `**kwargs`."""
    parameters = inspect.signature(target).parameters
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return list(dict.fromkeys([*named, *given])) if takes_any else named


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers only
        return {}


def build(registry: Registry, options: Mapping[str, Any], where: str = "", **extra: Any) -> Any:
    """Build what `{type: NAME, **arguments}` describes; `extra` are arguments that no option file gives.

    Raises:
        UserError: the name or an argument is unknown, or the class refuses the values (a width of 0).
    """
    where = where or registry.name
    if "type" not in options:
        raise UserError(f"{where}: 'type' is missing (the name of a registered {registry.name})")
    target = registry.get(options["type"])
    arguments = {key: value for key, value in options.items() if key != "type"} | extra
    arguments = check_arguments(target, arguments, where)
    try:
        return target(**arguments)
    except (ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        reason = str(error).strip().partition("\n")[0] or "no reason is given"
        raise UserError(
            f"{where}: {target.__name__} cannot be built with these arguments: {type(error).__name__}: {reason}"
        ) from error


ARCH_REGISTRY = Registry("network", "llie.archs")
DISCRIMINATOR_REGISTRY = Registry("discriminator", "llie.archs")
LOSS_REGISTRY = Registry("loss", "llie.losses")
METRIC_REGISTRY = Registry("metric", "llie.metrics")
DATASET_REGISTRY = Registry("dataset", "llie.data")
MODEL_REGISTRY = Registry("model", "llie.models")


def load_plugins(plugins: Iterable[str], beside: Path | None = None) -> None:
    """Import the user's own files or modules, so that what they register can be named in option files.

    Args:
        plugins: Python files (`my_network.py`) or importable modules (`my_package.networks`).
        beside: folder in which a relative file is looked for first; then in the working folder.

    Raises:
        UserError: a file or module is not there, or fails; the message names the file and the line.
    """
    bridge.prepare()
    for plugin in plugins:
        if plugin.endswith(".py"):
            _load_file(plugin, beside)
            continue
        try:
            importlib.import_module(plugin)
        except ModuleNotFoundError as error:
            if error.name is None or not (plugin == error.name or plugin.startswith(error.name + ".")):
                raise _failed(error) from error  # the plugin is there, what it imports is not
            raise UserError(f"plugins: no module named {plugin!r} (for a file, write its name with .py)") from None
        except Exception as error:
            raise _failed(error) from error


def _load_file(plugin: str, beside: Path | None) -> None:
    places = [folder / plugin for folder in (beside, Path()) if folder is not None]
    file = next((place.resolve() for place in places if place.is_file()), None)
    if file is None:
        raise UserError(f"plugins: there is no file {' or '.join(str(place) for place in dict.fromkeys(places))}")
    if any(getattr(module, "__file__", None) == str(file) for module in list(sys.modules.values())):
        return
    name = "llie_plugin" + re.sub(r"\W", "_", str(file.with_suffix("")))  # one for each file
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickles of its classes look here
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # half a module is none
        if isinstance(error, Exception):
            raise _failed(error, file) from error
        raise


def _failed(error: Exception, file: Path | None = None) -> UserError:
    """What went wrong in a plugin, and the last line of its own that was run."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, SyntaxError):  # never ran
        return UserError(f"plugins: {error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == str(file)] or frames
    return UserError(f"plugins: {own[-1].filename}, line {own[-1].lineno}: {type(error).__name__}: {error}")
