"""What a suite's file says.

::

    summary = "what it is for, in one line"
    preset = "paper-easy6"              # of train.py; every run starts from it
    seeds = [0, 1, 2]
    full_model = "srwm"                 # optional: the group that the report holds the others against

    [settings]                          # options of `python train.py PRESET --help`, for every run
    videos = false
    agent.entropy_cost = 0.02

    [grid]                              # each combination of these values is a group of runs
    policy = ["lstm", "srwm"]

    [[variant]]                         # optional: groups that differ in more than one setting
    name = "reset-50"
    label = "weights reset every 50 steps"
    settings = { reset = "50" }

    [[variant]]                         # trains nothing: other runs, evaluated under another reset rule
    name = "reset-50-in-evaluation"
    label = "reset in evaluation only"
    evaluates = "srwm"
    reset = "50"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common.config import read as read_settings
from common.errors import UserError, raise_problems, unknown_name
from common.files import read_data
from experiments.presets import PRESETS
from policies.resets import parse_reset

SHIPPED = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Value = str | int | float | bool | tuple[str | int | float, ...]
Head = TypeVar("Head")


@dataclass(frozen=True)
class _VariantHead:
    name: str = ""
    label: str = ""
    evaluates: str | None = None
    reset: str | None = None


@dataclass(frozen=True)
class Variant(_VariantHead):
    """A way of running, or of evaluating, in which groups of runs differ.

    Attributes:
        name: Becomes part of the names of its runs.
        label: What the report calls it.
        evaluates: For a variant without runs of its own, the variant whose runs it evaluates.
        reset: Reset rule of that evaluation.
        settings: Options of train.py by dotted name.
    """

    settings: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class _SuiteHead:
    summary: str = ""
    preset: str = ""
    seeds: tuple[int, ...] = (0,)
    full_model: str | None = None


@dataclass(frozen=True)
class Suite(_SuiteHead):
    """A set of runs.

    Attributes:
        summary: What it is for.
        preset: Preset of train.py that every run starts from.
        seeds: Each group is run once with each.
        full_model: Name of the group that others are ablations of; None for none.
        name: Name of its file.
        settings: Options of train.py by dotted name, for every run.
        grid: Options by dotted name, each with the values that it takes in turn.
        variants: One with an empty name where the file lists none.
    """

    name: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    variants: tuple[Variant, ...] = (Variant(),)


def shipped() -> dict[str, Path]:
    """The suites that ship, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a suite that ships, or a user's own.

    Args:
        name: of a shipped suite, or a path to a .toml file.

    Raises:
        UserError: there is neither.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir():
        inside = ", ".join(str(file) for file in sorted(path.glob("*.toml"))) or "which holds no .toml file"
        raise UserError(f"{path} is a directory: name one suite file, {inside}")
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UserError(f"suite file {path} does not exist: name a .toml file, or one of {', '.join(known)}")
    raise UserError(unknown_name("suite", name, known))


def read(path: Path) -> Suite:
    """The suite in a file.

    Raises:
        UserError: naming everything that is wrong with it, apart from the settings of runs, which are checked when
            runs are planned.
    """
    data, problems = read_data(path), []  # type: ignore[var-annotated]
    head = _head(_SuiteHead(), data, ("settings", "grid", "variant"), problems)
    suite = Suite(
        **vars(head),
        name=path.stem,
        settings=_settings(data, problems),
        grid=_grid(data, problems),
        variants=_variants(data.get("variant", []), problems),
    )
    if not _NAME.fullmatch(suite.name):
        problems.append(f"its name {suite.name!r}: use letters, digits, '_', '.' and '-'")
    if not suite.preset:
        problems.append("preset is missing")
    elif suite.preset not in PRESETS:
        problems.append(unknown_name("preset", suite.preset, PRESETS))
    if not suite.seeds or len(set(suite.seeds)) < len(suite.seeds):
        problems.append(f"seeds is {list(suite.seeds)}: give different whole numbers, at least one")
    raise_problems([f"suite {path}: {problem}" for problem in [*problems, *_variant_problems(suite)]])
    return suite


def _variant_problems(suite: Suite) -> list[str]:
    found = []
    trained = [variant.name for variant in suite.variants if variant.evaluates is None]
    names = [variant.name for variant in suite.variants]
    for variant in suite.variants:
        if names.count(variant.name) > 1:
            found.append(f"variant {variant.name!r} is listed more than once: give each its own name")
        if variant.evaluates is None:
            if variant.reset is not None:
                found.append(
                    f"variant {variant.name!r} gives reset without evaluates: "
                    f'write settings = {{ reset = "{variant.reset}" }} to train with it'
                )
            continue
        if variant.evaluates not in trained:
            found.append(unknown_name("variant to evaluate", variant.evaluates, trained))
        if variant.settings:
            found.append(f"variant {variant.name!r} trains nothing: leave its settings out")
        try:
            parse_reset("" if variant.reset is None else variant.reset)
        except UserError as error:
            found.append(f"variant {variant.name!r}: {error}")
    return list(dict.fromkeys(found))


# What follows adds a line to `problems` for everything that is wrong.


def _head(default: Head, data: Mapping[str, Any], tables: Sequence[str], problems: list[str]) -> Head:
    """The simple values of a table; the others have the names `tables`."""
    known = [*vars(default), *tables]
    problems += [unknown_name("key", key, known) for key in data if key not in known]
    values = {key: data[key] for key in vars(default) if key in data}
    return read_settings(type(default), values, problems, default)


def _table(data: Mapping[str, Any], key: str, problems: list[str]) -> Mapping[str, Any]:
    value = data.get(key, {})
    if isinstance(value, Mapping):
        return value
    problems.append(f"{key} is {value!r}: give a table")
    return {}


def _settings(data: Mapping[str, Any], problems: list[str]) -> dict[str, Value]:
    return {
        name: value
        for name, value in _flat(_table(data, "settings", problems))
        if _is_value(name, value, problems)
    }


def _grid(data: Mapping[str, Any], problems: list[str]) -> dict[str, tuple[Value, ...]]:
    found: dict[str, tuple[Value, ...]] = {}
    for name, values in _flat(_table(data, "grid", problems)):
        if name == "seed":
            problems.append("grid.seed: list seeds as seeds = [0, 1]")
        elif not isinstance(values, tuple) or not values:
            problems.append(f"grid.{name} is {values!r}: give a list of at least one value")
        elif len({str(value) for value in values}) < len(values):
            problems.append(f"grid.{name} lists a value twice")
        elif all(_is_value(f"grid.{name}", value, problems) for value in values):
            found[name] = values
    return found


def _variants(tables: object, problems: list[str]) -> tuple[Variant, ...]:
    found = []
    for number, table in enumerate(tables if isinstance(tables, list) else [tables], 1):
        if not isinstance(table, Mapping):
            problems.append(f"variant is {table!r}: write [[variant]] above each")
            continue
        wrong: list[str] = []
        head = _head(_VariantHead(), table, ("settings",), wrong)
        if not _NAME.fullmatch(head.name):
            what = (
                f"name {head.name!r}: use letters, digits, '_', '.' and '-'"
                if head.name
                else "name is missing"
            )
            wrong.append(what)
        found.append(
            Variant(**{**vars(head), "label": head.label or head.name}, settings=_settings(table, wrong))
        )
        problems += [f"variant {head.name or number}: {problem}" for problem in wrong]
    return tuple(found) or (Variant(),)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted names, lists as tuples."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _is_value(name: str, value: object, problems: list[str]) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    fits = all(isinstance(item, (str, int, float)) for item in items)
    problems += [] if fits else [f"{name} is {value!r}: give texts, numbers, true or false"]
    return fits
