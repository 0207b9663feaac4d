"""Importing users' own Python files and modules, which register classes."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from llie.errors import UserError

preparations: list[Callable[[], None]] = []  # called before plugins are imported
_loaded: dict[str, None] = {}  # plugins of this process in order: absolute file names, and modules


class LoadedPlugins:
    """Loads this process's plugins in another process when it is unpickled there, before objects of their classes."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[list[str]]]:
        return load_plugins, (list(_loaded),)


def load_plugins(plugins: Iterable[str], beside: Path | None = None) -> None:
    """Import the user's own files or modules, so that option files can name their classes.

    Args:
        plugins: Python files (`my_network.py`) or importable modules (`my_package.networks`).
        beside: folder in which relative files are searched first, before the working folder.

    Raises:
        UserError: a file or module is missing or fails; the message names the file and the line.
    """
    for prepare in preparations:
        prepare()
    for plugin in plugins:
        if plugin.endswith(".py"):
            _load_file(plugin, beside)
            continue
        try:
            importlib.import_module(plugin)
        except ModuleNotFoundError as error:
            if error.name is None or not (plugin == error.name or plugin.startswith(error.name + ".")):
                raise _failed(error) from error  # the plugin exists, but not a module that it imports
            raise UserError(f"plugins: no module named {plugin!r} (for a file, write its name with .py)") from None
        except Exception as error:
            raise _failed(error) from error
        _loaded[plugin] = None


def _load_file(plugin: str, beside: Path | None) -> None:
    places = [folder / plugin for folder in (beside, Path()) if folder is not None]
    file = next((place.resolve() for place in places if place.is_file()), None)
    if file is None:
        raise UserError(f"plugins: there is no file {' or '.join(str(place) for place in dict.fromkeys(places))}")
    _loaded[str(file)] = None
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
        del sys.modules[name], _loaded[str(file)]  # the module is incomplete
        if isinstance(error, Exception):
            raise _failed(error, file) from error
        raise


def _failed(error: Exception, file: Path | None = None) -> UserError:
    """The error in a plugin, with the line of the plugin where it happened."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, SyntaxError):  # the plugin did not run
        return UserError(f"plugins: {error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == str(file)] or frames
    return UserError(f"plugins: {own[-1].filename}, line {own[-1].lineno}: {type(error).__name__}: {error}")
