"""The parameters of a job: typed, defaulted, converted from text once, at the edge."""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from enum import Enum
from numbers import Complex, Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Union

from mpims.errors import UsageError

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "(required)"})()
"""Stands for the default of a parameter that has none."""


class Parameter(NamedTuple):
    """One annotated class attribute of a job."""

    name: str
    type: Any
    default: Any = REQUIRED


def find_parameters(cls: type, base: type) -> dict[str, Parameter]:
    """The annotated attributes of `cls` and its parents below `base`, parents first.

    Raises
    ------
    UsageError
        An annotation cannot be evaluated, or a parameter has the name of an attribute of `base`.
    """
    reserved = {*dir(base), *inspect.get_annotations(base)}
    found: dict[str, Parameter] = {}
    for parent in reversed(cls.__mro__):
        if not issubclass(parent, base) or parent is base:
            continue
        for name, hint in _own_hints(cls, parent).items():
            if name.startswith("_"):
                continue
            if typing.get_origin(hint) is ClassVar or hint is ClassVar:
                found.pop(name, None)
                continue
            if name in reserved:
                raise UsageError(
                    f"job {cls.__name__}: {name!r} cannot be a parameter, mpims.Job uses that name: "
                    "give it another, or leave the annotation out"
                )
            found[name] = Parameter(name, hint, getattr(cls, name, REQUIRED))
    return found


def _own_hints(job: type, parent: type) -> dict[str, Any]:
    """The annotations of one class, without those of its parents: each evaluated is time at start-up."""
    own = {"__annotations__": inspect.get_annotations(parent), "__module__": parent.__module__}
    names = getattr(sys.modules.get(parent.__module__), "__dict__", {})
    try:
        # As for a class, its module's names come before its own.
        return typing.get_type_hints(type(parent.__name__, (), own), dict(vars(parent)), names)
    except Exception as error:  # whatever the user's annotation raises when it is evaluated
        raise UsageError(f"job {job.__name__}: an annotation cannot be read: {error}") from None


def bind(job: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every parameter, from what was given and the defaults.

    Raises
    ------
    UsageError
        An unknown name, a value of the wrong type, or a required parameter without a value.
    """
    for name in given:
        if name not in parameters:
            from difflib import get_close_matches  # for this line alone

            near = get_close_matches(name, parameters, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = ", ".join(parameters) or "none"
            raise UsageError(f"job {job} has no parameter {name!r}: it has {known}{hint}")
    values = {}
    for name, parameter in parameters.items():
        if name in given:
            values[name] = _checked(job, parameter, given[name])
        elif parameter.default is REQUIRED:
            raise UsageError(f"job {job} needs a value for {name}: --set {name}=VALUE")
        else:
            values[name] = _checked(job, parameter, parameter.default)
    return values


def parse_settings(job: str, parameters: Mapping[str, Parameter], settings: list[str]) -> dict[str, Any]:
    """Turn ``NAME=VALUE`` texts into values of the parameters' types.

    Raises
    ------
    UsageError
        A text without ``=`` or a value that is not of its parameter's type. Unknown names pass:
        `bind` refuses them.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write --set NAME=VALUE")
        parameter = parameters.get(name)
        hint = _text_hint(parameter) if parameter else str
        try:
            values[name] = _convert(text, hint)
        except ValueError as error:
            raise UsageError(
                f"job {job}: parameter {name} wants {type_name(hint)}, "
                f"found {text!r}" + (f" ({error})" if str(error) else "")
            ) from None
    return values


def _text_hint(parameter: Parameter) -> Any:
    """What a text is converted to: a list or tuple without types is of the one type in its default."""
    kind, default = typing.get_origin(parameter.type) or parameter.type, parameter.default
    if kind not in (list, tuple) or typing.get_args(parameter.type) or not isinstance(default, kind):
        return parameter.type
    types_found = {type(element) for element in default}
    if types_found == {int, float}:
        types_found = {float}
    if len(types_found) != 1 or not types_found <= {bool, int, float, complex, str, Path}:
        return parameter.type
    (element,) = types_found
    return kind[element] if kind is list else kind[element, ...]


def type_name(hint: Any) -> str:
    """A type as its author wrote it."""
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace("typing.", "")
    )


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _convert(text: str, hint: Any) -> Any:
    """One value from text; ValueError if it is not of that type."""
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        if type(None) in alternatives and text.lower() in ("none", ""):
            return None
        for alternative in alternatives:
            if alternative is not type(None):
                try:
                    return _convert(text, alternative)
                except ValueError:
                    continue
        raise ValueError
    origin = typing.get_origin(hint)
    if origin is Literal:
        for value in typing.get_args(hint):
            if str(value) == text:
                return value
        raise ValueError
    if (origin or hint) in (list, tuple):
        parts = [part for part in text.split(",") if part]
        return (origin or hint)(map(_convert, parts, _element_hints(hint, len(parts), str)))
    return _convert_simple(text, hint)


def _element_hints(hint: Any, n_elements: int, default: Any) -> list[Any]:
    """The type of each element of a list or tuple of that length; ValueError if it must have another."""
    arguments = typing.get_args(hint) or (default, ...)
    if typing.get_origin(hint) is tuple and arguments[-1] is not ...:
        if len(arguments) != n_elements:
            raise ValueError(f"{len(arguments)} values, not {n_elements}")
        return list(arguments)
    return [arguments[0]] * n_elements


def _convert_simple(text: str, hint: Any) -> Any:
    if hint is bool:
        word = text.lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
        raise ValueError("write true or false")
    if hint is int:
        return parse_integer(text)
    if hint in (float, complex):
        return _number(text, hint)
    if hint in (str, Any):
        return text
    if hint is Path:
        return Path(text).expanduser()
    if isinstance(hint, type) and issubclass(hint, Enum):
        if text in hint.__members__:
            return hint[text]
        raise ValueError(f"write one of {', '.join(hint.__members__)}")
    raise ValueError("a value of that type cannot be given as text: set it in Python")


def parse_integer(text: str) -> int:
    """An integer, ``1e6`` and ``1_000`` included; ValueError if it is none.

    Examples
    --------
    >>> parse_integer("1e6"), parse_integer("2.5e3"), parse_integer("1_200"), parse_integer("1e23")
    (1000000, 2500, 1200, 100000000000000000000000)
    """
    try:
        return int(text)
    except ValueError:
        value = _number(text, float)
        if not value.is_integer():  # neither is inf
            raise ValueError from None
        from decimal import Decimal  # for this line alone

        return int(Decimal(text))


def _number(text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError from None  # Python's own words add nothing to ours


def _checked(job: str, parameter: Parameter, value: Any) -> Any:
    """The value as its type wants it: an integer made a float, a text made a Path."""
    with contextlib.suppress(ValueError):
        return _coerce(value, parameter.type)
    raise UsageError(
        f"job {job}: parameter {parameter.name} wants {type_name(parameter.type)}, "
        f"found {value!r} ({type(value).__name__})"
    )


def _coerce(value: Any, hint: Any) -> Any:
    """The value as that type; ValueError if it is none."""
    if hint is Any:
        return value
    alternatives = _alternatives(hint)
    if len(alternatives) > 1:
        for alternative in alternatives:
            with contextlib.suppress(ValueError):
                return _coerce(value, alternative)
        raise ValueError
    kind = typing.get_origin(hint) or hint
    if kind in (list, tuple) and isinstance(value, kind):
        return kind(map(_coerce, value, _element_hints(hint, len(value), Any)))
    if hint in (int, float, complex):
        numbers = {int: Integral, float: Real, complex: Complex}
        if not isinstance(value, bool) and isinstance(value, numbers[hint]):
            try:
                return hint(value)
            except OverflowError:
                raise ValueError from None
    elif kind is Literal:
        if value in typing.get_args(hint):
            return value
    elif hint is Path:
        if isinstance(value, (str, Path)):
            return Path(value)
    elif not isinstance(kind, type) or isinstance(value, kind):
        return value
    raise ValueError
