"""What a grid's file says, and the cells that it consists of.

::

    summary = "what it is for, in one line"

    [settings]                          # of every cell (`settings.Cell`); of a list, each value is tried
    task = ["cue-15", "copy"]
    optimizer = ["adam", "rmsprop"]
    seed = [0, 1, 2]
    updates = 500
    core.heads = 8                      # for the cores that have it

    [[variant]]                         # a row of the tables, or several where it has lists
    name = "SRWM, sharpened"            # optional: the core's name stands in
    policy = "srwm"
    core.sharpness = [2, 4, 8]          # each combination of all lists is a row
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import assign, flat, options, problems
from common.errors import UserError, raise_problems, unknown_name
from common.files import read_data
from experiments.memory.settings import Cell, every_setting
from policies.registry import core_configs

SHIPPED = Path(__file__).parent / "grids"
CORE = "core."
_KEYS = ("summary", "settings", "variant")
_UNNAMED = ("task", "seed", "policy")
"""Settings that the label of a row leaves out."""

Lists = dict[str, tuple[Any, ...]]
"""Settings by dotted names, each with the values that are tried."""


@dataclass(frozen=True)
class Variant:
    """What the rows of the tables differ in; see the module."""

    name: str = ""
    settings: Lists = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """A set of cells, as its file says; see the module."""

    name: str = ""
    summary: str = ""
    settings: Lists = field(default_factory=dict)
    variants: tuple[Variant, ...] = (Variant(),)


@dataclass(frozen=True)
class Planned:
    """A cell, and what tables call it and those that differ from it in task and seed alone."""

    label: str
    cell: Cell


def shipped() -> dict[str, Path]:
    """The grids that ship, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of the grid that ships under `name`, or a user's own file of that path.

    Raises:
        UserError: there is neither.
    """
    known, path = shipped(), Path(name)
    if name not in known and not path.is_file():
        raise UserError(unknown_name("grid", name, [*known, "FILE.toml"]))
    return known.get(name, path)


def read(path: Path) -> Grid:
    """The grid in a file.

    Raises:
        UserError: it is not one; what its settings may be is checked when it is planned.
    """
    data = read_data(path)
    wrong = [unknown_name("key", key, _KEYS) for key in data if key not in _KEYS]
    variants = data.get("variant", [{}])
    if not isinstance(variants, list) or not all(isinstance(table, Mapping) for table in variants):
        raise UserError(f"grid {path}: write [[variant]] above each variant")
    if not isinstance(data.get("settings", {}), Mapping):
        wrong.append("write [settings] above the settings")
    raise_problems([f"grid {path}: {line}" for line in wrong])
    return Grid(
        path.stem,
        str(data.get("summary", "")),
        lists(data.get("settings", {})),
        tuple(_variant(table) for table in variants) or (Variant(),),
    )


def _variant(table: Mapping[str, Any]) -> Variant:
    return Variant(str(table.get("name", "")), lists({key: table[key] for key in table if key != "name"}))


def lists(table: Mapping[str, Any]) -> Lists:
    """The settings in `table`, nested or dotted, each as a tuple of the values to be tried."""
    known = every_setting()
    return {
        name: _values(value, is_list=name in known and known[name].type.is_tuple)
        for name, value in flat(table)
    }


def _values(value: Any, is_list: bool) -> tuple[Any, ...]:
    """The values to be tried; where each is a list itself, several of them are a list of lists."""
    several = isinstance(value, (list, tuple))
    if is_list and several:
        several = any(isinstance(item, (list, tuple)) for item in value)
    return tuple(value) if several else (value,)


def plan(grid: Grid, given: Lists) -> list[Planned]:
    """The cells of `grid`, those of the first seed first and of each seed those of the first task first.

    Args:
        grid: what to try.
        given: settings that override the grid's. A policy stands in for all its variants. A setting of cores is for
            those that have it.

    Raises:
        UserError: naming everything that is wrong with any of them.
    """
    variants = (Variant(),) if "policy" in given else grid.variants
    wrong: dict[str, list[str]] = {}
    planned: dict[Cell, Planned] = {}
    for variant in variants:
        for label, cell in _cells(grid, given, variant, wrong):
            planned.setdefault(cell, Planned(label, cell))
    where = (f"{line} (in {labels[0]}, and {len(labels) - 1} more)" for line, labels in wrong.items())
    raise_problems([*_unused(grid, given, variants), *where])
    cells = list(planned.values())
    tasks, seeds = (
        list(dict.fromkeys(getattr(one.cell, name) for one in cells)) for name in ("task", "seed")
    )
    return sorted(cells, key=lambda one: (seeds.index(one.cell.seed), tasks.index(one.cell.task)))


def _cells(
    grid: Grid, given: Lists, variant: Variant, wrong: dict[str, list[str]]
) -> Iterator[tuple[str, Cell]]:
    """Label and cell of each combination; `wrong` gets each problem, and the labels of those that have it."""
    policies = _policies(grid, given, variant)
    for policy in policies:
        name = variant.name or str(policy)
        if variant.name and len(policies) > 1:
            name = f"{policy}, {variant.name}"
        shared = {name: values for name, values in grid.settings.items() if _has(policy, name)}
        chosen = {name: values for name, values in given.items() if _has(policy, name)}
        every: Lists = {**shared, **variant.settings, **chosen, "policy": (policy,)}
        for values in itertools.product(*every.values()):
            point = dict(zip(every, values, strict=True))
            found: list[str] = []
            cell = assign(Cell(), point, found)
            label = _label(name, every, point)
            for line in found or problems(cell):
                wrong.setdefault(line, []).append(label)
            yield label, cell


def _policies(grid: Grid, given: Lists, variant: Variant) -> tuple[Any, ...]:
    return {**grid.settings, **variant.settings, **given}.get("policy", (Cell().policy,))


def _has(policy: object, setting: str) -> bool:
    """Whether a shared setting is for the core `policy`; a core that nobody knows has everything."""
    config = core_configs().get(str(policy))
    if config is None or not setting.startswith(CORE):
        return True
    return setting.removeprefix(CORE) in {option.name for option in options(config())}


def _unused(grid: Grid, given: Lists, variants: Sequence[Variant]) -> list[str]:
    """A line for each setting that none of the cores has."""
    shared = given if "policy" in given else {**grid.settings, **given}
    policies = {policy for variant in variants for policy in _policies(grid, given, variant)}
    return [
        f"{name} is a setting of none of the cores: {', '.join(sorted(map(str, policies)))}"
        for name in shared
        if not any(_has(policy, name) for policy in policies)
    ]


def _label(name: str, every: Lists, point: Mapping[str, Any]) -> str:
    """`name`, and in what this combination differs from others of the same variant."""
    varied = [key for key, values in every.items() if len(values) > 1 and key not in _UNNAMED]
    return ", ".join([name, *(_words(key, point[key]) for key in varied)])


def _words(name: str, value: object) -> str:
    last = name.rpartition(".")[2].replace("_", " ")
    if isinstance(value, bool):
        return last if value else f"no {last}"
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if name == "optimizer" else f"{last} {text}"
