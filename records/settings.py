"""Typed settings from plain values (JSON) and from words (a command line), by the fields of dataclasses.

Fields may be of type bool, int, float or str, ``X | None``, ``tuple[X, ...]``, or another dataclass. Problems
are collected rather than raised, so that all of them can be shown at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from common.errors import UserError, unknown_name

Settings = TypeVar("Settings")

WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def field_types(kind: type) -> dict[str, Any]:
    """The fields of the dataclass `kind` and their types."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def without_none(hint: Any) -> tuple[Any, bool]:
    """``X`` and whether the type was ``X | None``."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [item for item in get_args(hint) if item is not type(None)]
        return inner[0], len(inner) < len(get_args(hint))
    return hint, False


def item_type(hint: Any) -> Any:
    """``X`` if the type is ``tuple[X, ...]``, else None."""
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def parse_word(hint: Any, word: str) -> Any:
    """One word of a command line as a value of the scalar type `hint`.

    "none" is None where the type allows it; whole numbers may be written 25_000_000 or 25e6.

    Raises:
        ValueError: it is not one; the message says what would be.
    """
    inner, optional = without_none(hint)
    if optional and word.lower() == "none":
        return None
    value: Any = word
    try:
        if inner is int:
            value = int(word) if "e" not in word.lower() else _whole(float(word))
        elif inner is float:
            value = float(word)
    except (ValueError, OverflowError):
        raise ValueError(wanted(hint)) from None
    return check_value(hint, value)


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError
    return int(value)


def check_value(hint: Any, value: Any) -> Any:
    """`value`, which may come from JSON, as one of type `hint` (lists as tuples, whole numbers as floats).

    Raises:
        ValueError: it is not one; the message says what would be.
    """
    inner, optional = without_none(hint)
    item = item_type(inner)
    if value is None and optional:
        return None
    if item is not None and isinstance(value, (list, tuple)):
        with contextlib.suppress(ValueError):
            return tuple(check_value(item, entry) for entry in value)
    if (
        inner is float
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    if inner in (bool, int, str) and type(value) is inner:
        return value
    raise ValueError(wanted(hint))


def wanted(hint: Any) -> str:
    """What a value of type `hint` looks like: "a whole number or none"."""
    inner, optional = without_none(hint)
    item = item_type(inner)
    text = f"a list, each {WANTED[item]}" if item is not None else WANTED[inner]
    return f"{text} or none" if optional else text


def build(
    kind: type[Settings], data: object, fallback: Settings, problems: list[str], name: str = ""
) -> Settings:
    """`kind(**data)`; fields left out take the values of `fallback`.

    Args:
        kind: a dataclass without nested dataclasses, which may check its own values by raising `UserError`.
        data: field names and plain values.
        fallback: stands in for what has a problem.
        problems: gets a line for each unknown field and each value of a wrong type, or that `kind` refuses.
        name: what to put before field names in those lines, such as "core.".
    """
    if not isinstance(data, Mapping):
        problems.append(
            f"{name.rstrip('.') or 'the configuration'} is {data!r}: give an object with named fields"
        )
        return fallback
    hints = field_types(kind)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            problems.append(unknown_field(name, str(key), list(hints)))
            continue
        try:
            values[key] = check_value(hints[key], value)
        except ValueError as error:
            problems.append(f"{name}{key} is {value!r}: give {error}")
    try:
        return dataclasses.replace(fallback, **values)  # type: ignore[type-var]
    except UserError as error:
        problems.append(str(error))
        return fallback


def unknown_field(owner: str, name: str, known: list[str]) -> str:
    """One line for a setting that `owner` ("core.", or "" for the whole) does not have."""
    what = f"{owner.rstrip('.')} setting".strip()
    return unknown_name(what, name, known) if known else f"unknown {what} {name!r}: it has none"


def plain(value: Any) -> Any:
    """Settings as JSON values: dataclasses as objects, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
