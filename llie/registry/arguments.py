"""Checking the arguments of registered classes, and building them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llie.errors import UserError, suggest
from llie.registry.kinds import describe, fit
from llie.registry.names import Registry


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check that `target` can be called with these keyword arguments, before anything is built.

    Returns:
        The arguments converted to the annotated types: 1e3 becomes 1000 where an integer is expected.

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
    kinds = annotations_of(target)
    fitted = {}
    for argument, value in arguments.items():
        try:
            fitted[argument] = fit(value, kinds.get(argument, Any))
        except TypeError:
            raise UserError(
                f"{where}.{argument}: {target.__name__} expects {describe(kinds[argument])}, not {value!r}"
            ) from None
    return fitted


def argument_names(target: Callable[..., Any], given: Iterable[str] = ()) -> list[str]:
    """Names of the keyword arguments of `target`; with `**kwargs`, also all `given` ones."""
    parameters = inspect.signature(target).parameters
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return list(dict.fromkeys([*named, *given])) if takes_any else named


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The type annotations of the arguments of `target`; empty if they cannot be evaluated."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names imported for type checkers only
        return {}


def build(registry: Registry, options: Mapping[str, Any], where: str = "", **extra: Any) -> Any:
    """Build what `{type: NAME, **arguments}` describes; `extra` are arguments that are not in option files.

    Raises:
        UserError: the name or an argument is unknown, or the class rejects the values (a width of 0).
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
