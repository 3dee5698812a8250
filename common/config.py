"""Settings: dataclasses that are read from plain values (JSON, TOML) and from the words of a command line.

A field is a bool, int, float, str, Path or dict, ``X | None``, ``tuple[X, ...]``, another dataclass, or one of several
dataclasses that go by name (`choice`). What a value may be stands in its type: ``Annotated[int, Range(1)]``,
``Annotated[str, OneOf(("stop", "skip"))]``. Settings are constructed freely, right or wrong; `problems` finds
everything that is wrong with them, `check` raises it. So all mistakes of a command or a file are shown at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from common.errors import nearest, raise_problems, shown, unknown_name

Settings = TypeVar("Settings")

WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    dict: "a table",
}
NAME = "name"
"""Key of the plain values of a chosen dataclass that says which one it is."""


# What may stand in the type of a field


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; both ends belong to it unless they are open."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def refusal(self, value: float) -> str | None:
        """What `value` should be instead, such as "1 or more"; None if it is in the range."""
        if not (value > self.low if self.open_low else value >= self.low):
            return f"more than {self.low:,}" if self.open_low else f"{self.low:,} or more"
        if not (value < self.high if self.open_high else value <= self.high):
            return f"less than {self.high:,}" if self.open_high else f"at most {self.high:,}"
        return None


@dataclass(frozen=True)
class OneOf:
    """Texts that a setting can be. `kind` is what messages call such a text; "" for the setting's own name."""

    names: Collection[str]
    kind: str = ""


class _Marker:
    """Says something about a setting that no value of it changes."""


INCIDENTAL = _Marker()
"""The setting does not decide what is learned: a run may be continued with another value of it."""
INLINE = _Marker()
"""The settings of this nested dataclass go by their own names, without its name before them."""

_CHOICES, _OPTION = "choices", "option"


def choice(choices: Callable[[], Mapping[str, type]], default: type, option: str) -> Any:
    """A field that holds one of several dataclasses, each known by a name.

    `choices` gives them, and is asked anew each time; `option` names the setting that chooses, on a command line and
    in suites.
    """
    return field(default_factory=default, metadata={_CHOICES: choices, _OPTION: option})


def chosen_name(choices: Mapping[str, type], value: object) -> str | None:
    """The name of the dataclass that `value` is an instance of, None if there is none."""
    return next((name for name, kind in choices.items() if type(value) is kind), None)


# Types


@dataclass(frozen=True)
class FieldType:
    """The type of a field, taken apart.

    Attributes:
        scalar: bool, int, float, str, or a dataclass; of a tuple, the type of its items.
        optional: whether None is allowed.
        is_tuple: whether there may be any number of items.
        constraints: `Range`, `OneOf` and markers.
    """

    scalar: type
    optional: bool
    is_tuple: bool
    constraints: tuple[object, ...]

    def wanted(self) -> str:
        """What a value looks like: "a whole number or none"."""
        text = f"a list, each {WANTED[self.scalar]}" if self.is_tuple else WANTED[self.scalar]
        return f"{text} or none" if self.optional else text


def field_type(hint: Any) -> FieldType:
    """The parts of the type `hint` of a field."""
    constraints: list[object] = []
    optional = is_tuple = False
    while not isinstance(hint, type) or get_origin(hint) is not None:
        origin = get_origin(hint)
        if origin is Annotated:
            constraints += hint.__metadata__
            hint = hint.__origin__
        elif origin in (Union, types.UnionType):
            optional = True
            (hint,) = (item for item in get_args(hint) if item is not type(None))
        elif origin is tuple:
            is_tuple = True
            hint = get_args(hint)[0]
        elif origin is dict:
            hint = dict
        else:
            raise TypeError(f"settings cannot be of type {hint}")
    return FieldType(hint, optional, is_tuple, tuple(constraints))


def field_types(kind: type) -> Mapping[str, FieldType]:
    """The fields of the dataclass `kind` and their types."""
    return _field_types(kind)


@cache
def _field_types(kind: type) -> Mapping[str, FieldType]:
    hints = get_type_hints(kind, include_extras=True)
    return types.MappingProxyType(
        {item.name: field_type(hints[item.name]) for item in dataclasses.fields(kind)}
    )


# Values


def converted(wanted: FieldType, value: Any) -> Any:
    """What users write in files and on command lines, as `check_value` takes it; what cannot be converted stays.

    Texts may be numbers, "none" is None where the type allows it, one value stands for a tuple of one, and whole
    numbers may be written 25_000_000 or 25e6.
    """
    if wanted.is_tuple and value is not None:
        item = dataclasses.replace(wanted, is_tuple=False, optional=False)
        return [converted(item, entry) for entry in (value if isinstance(value, (list, tuple)) else [value])]
    if wanted.optional and isinstance(value, str) and value.lower() == "none":
        return None
    if wanted.scalar is str and type(value) in (int, float):
        return str(value)  # a reset rule may be a number of steps
    with contextlib.suppress(ValueError, OverflowError):
        if wanted.scalar is int and isinstance(value, str) and "e" not in value.lower():
            return int(value)
        if wanted.scalar in (int, float) and isinstance(value, (str, float)):
            number = float(value)
            if wanted.scalar is float and math.isfinite(number):
                return number
            if wanted.scalar is int and number == int(number):
                return int(number)
    return value


def check_value(wanted: FieldType, value: Any) -> Any:
    """`value`, which may come from JSON, as one of the type `wanted`: lists as tuples, texts as paths, 1 as 1.0.

    Raises:
        ValueError: it is not one; the message says what would be.
    """
    if value is None and wanted.optional:
        return None
    if not wanted.is_tuple:
        return _check_scalar(wanted, value)
    if isinstance(value, (list, tuple)):
        with contextlib.suppress(ValueError):
            return tuple(_check_scalar(wanted, item) for item in value)
    raise ValueError(wanted.wanted())


def _check_scalar(wanted: FieldType, value: Any) -> Any:
    if wanted.scalar is float and type(value) in (int, float):
        with contextlib.suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    elif wanted.scalar is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif type(value) is wanted.scalar:
        return value
    raise ValueError(wanted.wanted())


# Reading and writing


def read(default: Settings, data: object, problems: list[str], where: str = "") -> Settings:
    """`default` with the plain values in `data`.

    Args:
        default: stands in for what is missing or has a problem.
        data: names and plain values; a chosen dataclass has its name under "name", or is just that name. Where the
            name differs from that of `default`, its other settings start from their own defaults.
        problems: gets a line for each unknown setting and each value of a wrong type.
        where: what to put before names in those lines, such as "agent.".
    """
    if not isinstance(data, Mapping):
        problems.append(
            f"{where.rstrip('.') or 'the configuration'} is {shown(data)}: give an object with named fields"
        )
        return default
    hints = field_types(type(default))
    items = {item.name: item for item in dataclasses.fields(default)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{where}{key}"
        if key not in hints:
            problems.append(_unknown_setting(where, str(key), list(hints)))
        elif _CHOICES in items[key].metadata:
            values[key] = _read_choice(items[key], value, problems, getattr(default, key), where)
        elif dataclasses.is_dataclass(hints[key].scalar):
            inner = where if INLINE in hints[key].constraints else f"{name}."
            values[key] = read(getattr(default, key), value, problems, inner)
        else:
            try:
                values[key] = check_value(hints[key], value)
            except ValueError as error:
                problems.append(f"{name} is {shown(value)}: give {error}")
    return dataclasses.replace(default, **values)  # type: ignore[type-var]


def _read_choice(item: Any, data: object, problems: list[str], default: Any, where: str) -> Any:
    choices = item.metadata[_CHOICES]()
    values = {NAME: data} if isinstance(data, str) else dict(data) if isinstance(data, Mapping) else data
    present = chosen_name(choices, default)
    name = values.pop(NAME, present) if isinstance(values, dict) else present
    if not isinstance(name, str) or name not in choices:
        problems.append(unknown_name(item.metadata[_OPTION], shown(name, quoted=False), choices))
        return default  # what belongs to an unknown name cannot be judged
    start = default if name == present else choices[name]()
    return read(start, values, problems, f"{where}{item.name}.")


def plain(value: Any) -> Any:
    """Settings as JSON values, which `read` takes: dataclasses as objects, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {}
        for item in dataclasses.fields(value):
            part = getattr(value, item.name)
            found[item.name] = plain(part)
            if _CHOICES in item.metadata:
                found[item.name] = {NAME: chosen_name(item.metadata[_CHOICES](), part), **found[item.name]}
        return found
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _unknown_setting(where: str, name: str, known: list[str]) -> str:
    what = f"{where.rstrip('.')} setting".strip()
    name = shown(name, quoted=False)
    return unknown_name(what, name, known) if known else f"unknown {what} {name!r}: it has none"


# Checking


def problems(settings: Any, where: str = "") -> list[str]:
    """Everything that is wrong with settings, a line each, those of nested ones included.

    Types, ranges and names are known from the fields; a dataclass may have a method ``contradictions() -> list[str]``
    for what concerns several fields together. It is asked only if each field is right by itself. `where` stands
    before names, such as "agent.".
    """
    found: list[str] = []
    hints = field_types(type(settings))
    for item in dataclasses.fields(settings):
        value, name = getattr(settings, item.name), f"{where}{item.name}"
        if _CHOICES in item.metadata:
            choices = item.metadata[_CHOICES]()
            if chosen_name(choices, value) is None:
                kind = type(value).__name__
                found.append(
                    f"{name} is a {kind}, which no {item.metadata[_OPTION]} has: register it, or use another"
                )
                continue
        elif not dataclasses.is_dataclass(hints[item.name].scalar):
            found += _value_problems(hints[item.name], value, name)
            continue
        found += problems(value, where if INLINE in hints[item.name].constraints else f"{name}.")
    if not found and hasattr(settings, "contradictions"):
        found += settings.contradictions()
    return found


def _value_problems(wanted: FieldType, value: Any, name: str) -> list[str]:
    try:
        value = check_value(wanted, value)
    except ValueError as error:
        return [f"{name} is {shown(value)}: give {error}"]
    found = []
    for item in (value or ()) if wanted.is_tuple else [value]:
        for constraint in wanted.constraints if item is not None else ():
            if isinstance(constraint, Range):
                or_none = ", or none" if wanted.optional else ""
                if refusal := constraint.refusal(item):
                    found.append(f"{name} is {shown(item)}: give {refusal}{or_none}")
            elif isinstance(constraint, OneOf) and item not in constraint.names:
                kind = constraint.kind or name
                found.append(unknown_name(kind, shown(item, quoted=False), constraint.names))
    return found


def check(settings: Any, where: str = "") -> None:
    """Raise one `UserError` that names everything wrong with `settings`, if anything is."""
    raise_problems(problems(settings, where))


# Settings one by one, as command lines and files of settings have them


@dataclass(frozen=True)
class Option:
    """One setting of a configuration.

    Attributes:
        name: dotted, as users write it: "core.heads", "reset".
        path: names of the fields that lead to it; for the choice of a dataclass, the last one is "name".
        choices: the dataclasses by name, if it chooses one.
        description: from the docstring of its dataclass.
    """

    name: str
    path: tuple[str, ...]
    type: FieldType
    value: Any
    choices: Mapping[str, Any]
    description: str

    @property
    def flag(self) -> str:
        """As an option of a command line: "--core.head-width"."""
        return "--" + self.name.replace("_", "-")


def options(settings: Any, prefix: str = "", path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Every setting of `settings` and of what is nested in it, in the order of the fields."""
    hints, texts = field_types(type(settings)), descriptions(type(settings))
    for item in dataclasses.fields(settings):
        value, wanted = getattr(settings, item.name), hints[item.name]
        here, text = (*path, item.name), texts.get(item.name, "")
        if _CHOICES in item.metadata:
            choices, name = item.metadata[_CHOICES](), f"{prefix}{item.metadata[_OPTION]}"
            chooser = FieldType(str, False, False, wanted.constraints)
            yield Option(name, (*here, NAME), chooser, chosen_name(choices, value), choices, text)
        elif not dataclasses.is_dataclass(wanted.scalar):
            yield Option(f"{prefix}{item.name}", here, wanted, value, {}, text)
            continue
        inner = prefix if INLINE in wanted.constraints else f"{prefix}{item.name}."
        yield from options(value, inner, here)


def descriptions(kind: type) -> Mapping[str, str]:
    """What the ``Attributes:`` of the docstrings of a dataclass and its bases say about each."""
    return _descriptions(kind)


@cache
def _descriptions(kind: type) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        _, _, section = text.partition("\nAttributes:\n")
        section = re.split(r"\n(?=\S)", section)[0]
        for entry in re.split(r"\n(?=    \S)", section):
            name, colon, description = entry.strip().partition(":")
            if colon:
                found[name] = " ".join(description.split())
    return types.MappingProxyType(found)


def assign(settings: Settings, data: object, problems: list[str]) -> Settings:
    """`settings` with the values in `data`, as users write them in a file or on a command line.

    Args:
        settings: what to start from.
        data: values by name, dotted or nested: as `options` names them, or as `plain` writes them. What chooses a
            dataclass is taken first, so that the settings of the new one are known. Values are `converted`.
        problems: gets a line for each unknown name and each value of a wrong type.
    """
    if not isinstance(data, Mapping):
        problems.append(f"the configuration is {shown(data)}: give an object with named fields")
        return settings
    values = dict(flat(data))
    known = _by_spelling(settings)
    chosen = {name: value for name, value in values.items() if name in known and known[name].choices}
    settings = read(settings, _nested(known, chosen), problems)
    # What belongs to an unknown name cannot be judged.
    unjudged = tuple(
        f"{'.'.join(owner)}."
        for name, value in chosen.items()
        if not isinstance(value, str) or value not in known[name].choices
        for owner in (known[name].path[:-1], known[name].path[-2:-1])
    )
    known = _by_spelling(settings)
    rest = {
        name: value for name, value in values.items() if name not in chosen and not name.startswith(unjudged)
    }
    for name in [name for name in rest if name not in known]:
        problems.append(_unknown(name, rest.pop(name), known))
    return read(settings, _nested(known, rest), problems)


def flat(data: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested tables, by dotted name."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _by_spelling(settings: Any) -> dict[str, Option]:
    """The options under their own names, and under those that `plain` nests."""
    found = {}
    for option in options(settings):
        found[option.name] = found[".".join(option.path)] = option
        if option.choices:
            found[".".join(option.path[:-1])] = option
    return found


def _unknown(name: str, value: object, known: Mapping[str, Option]) -> str:
    if any(other.startswith(f"{name}.") for other in known):
        return f"{name} is {shown(value)}: give an object with named fields"
    near = nearest(name, dict.fromkeys(option.name for option in known.values()))
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    return f"unknown setting {shown(name)}{hint}"


def _nested(known: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name as `read` takes them."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *owners, last = known[name].path
        place = nested
        for owner in owners:
            place = place.setdefault(owner, {})
        place[last] = converted(known[name].type, value)
    return nested
