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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from common.config import flat
from common.config import read as read_settings
from common.errors import UserError, raise_problems, shown, unknown_name
from common.files import read_data
from experiments.presets import PRESETS
from policies.resets import parse_reset

SHIPPED = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Value = str | int | float | bool | tuple[str | int | float, ...]
Table = TypeVar("Table", "Suite", "Variant")
_KEYS = ("summary", "preset", "seeds", "full_model", "settings", "grid", "variant")


@dataclass(frozen=True)
class Variant:
    """A way of running, or of evaluating, in which groups of runs differ; `settings` go by dotted names."""

    name: str = ""
    label: str = ""
    evaluates: str | None = None
    reset: str | None = None
    settings: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A set of runs, as its file says; `settings` and `grid` go by dotted names.

    Attributes:
        name: of its file.
        variants: one with an empty name where the file lists none.
    """

    summary: str = ""
    preset: str = ""
    seeds: tuple[int, ...] = (0,)
    full_model: str | None = None
    settings: dict[str, Value] = field(default_factory=dict)
    grid: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    name: str = ""
    variants: tuple[Variant, ...] = (Variant(),)


def shipped() -> dict[str, Path]:
    """The suites that ship, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of the suite that ships under `name`, or a user's own file of that path.

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
    problems: list[str] = []
    data = read_data(path)
    suite = _read_table(Suite(name=path.stem), data, _KEYS, problems)
    variants = _variants(data.get("variant", []), problems)
    suite = replace(suite, grid=_grid(suite.grid, problems), variants=variants)
    if not _NAME.fullmatch(suite.name):
        problems.append(f"its name {shown(suite.name)}: use letters, digits, '_', '.' and '-'")
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


def _read_table(default: Table, data: Mapping[str, Any], keys: Collection[str], problems: list[str]) -> Table:
    """`default` with what `data` says, in which `keys` may stand."""
    problems += [unknown_name("key", key, keys) for key in data if key not in keys]
    values = {key: value for key, value in data.items() if key in keys and key in vars(default)}
    found = read_settings(default, values, problems)
    settings = {name: value for name, value in _flat(found.settings) if _is_value(name, value, problems)}
    return replace(found, settings=settings)


def _grid(table: Mapping[str, Any], problems: list[str]) -> dict[str, tuple[Value, ...]]:
    found: dict[str, tuple[Value, ...]] = {}
    for name, values in _flat(table):
        if name == "seed":
            problems.append("grid.seed: list seeds as seeds = [0, 1]")
        elif not isinstance(values, tuple) or not values:
            problems.append(f"grid.{name} is {shown(values)}: give a list of at least one value")
        elif len({str(value) for value in values}) < len(values):
            problems.append(f"grid.{name} lists a value twice")
        elif all(_is_value(f"grid.{name}", value, problems) for value in values):
            found[name] = values
    return found


def _variants(tables: object, problems: list[str]) -> tuple[Variant, ...]:
    found = []
    for number, table in enumerate(tables if isinstance(tables, list) else [tables], 1):
        if not isinstance(table, Mapping):
            problems.append(f"variant is {shown(table)}: write [[variant]] above each")
            continue
        wrong: list[str] = []
        variant = _read_table(Variant(), table, vars(Variant()), wrong)
        if not variant.name:
            wrong.append("name is missing")
        elif not _NAME.fullmatch(variant.name):
            wrong.append(f"name {shown(variant.name)}: use letters, digits, '_', '.' and '-'")
        found.append(replace(variant, label=variant.label or variant.name))
        problems += [f"variant {variant.name or number}: {problem}" for problem in wrong]
    return tuple(found) or (Variant(),)


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values in `table` by dotted name, lists as tuples."""
    return ((name, _tuples(value)) for name, value in flat(table))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_value(name: str, value: object, problems: list[str]) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    fits = all(isinstance(item, (str, int, float)) for item in items)
    problems += [] if fits else [f"{name} is {shown(value)}: give texts, numbers, true or false"]
    return fits
