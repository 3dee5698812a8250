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

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.errors import UserError, raise_problems, unknown_name
from experiments.presets import PRESETS
from policies.resets import parse_reset

# Standard since Python 3.11; before, the package it was taken from.
toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

SHIPPED = Path(__file__).parent
PROGRAMS = {"train": (), "witness": ("witness",)}
"""What can make a run: the words after ``python train.py``."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Value = str | int | float | bool | tuple[str | int | float, ...]


@dataclass(frozen=True)
class Variant:
    """A way of running, or of evaluating, in which groups of runs differ.

    Attributes:
        name: becomes part of the names of its runs.
        label: how the report calls it.
        settings: options of train.py by dotted name.
        program: what trains it.
        evaluates: for a variant without runs of its own, the variant whose runs it evaluates.
        reset: reset rule of that evaluation.
    """

    name: str = ""
    label: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    program: str = "train"
    evaluates: str | None = None
    reset: str | None = None


@dataclass(frozen=True)
class Suite:
    """A set of runs.

    Attributes:
        name: that of its file.
        summary: what it is for.
        preset: of train.py, that every run starts from.
        seeds: each group is run once with each.
        settings: options of train.py by dotted name, for every run.
        grid: options by dotted name, each with the values that it takes in turn.
        variants: one with an empty name where the file lists none.
        full_model: name of the group that others are ablations of; None for none.
    """

    name: str
    summary: str
    preset: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Value]
    grid: Mapping[str, tuple[Value, ...]]
    variants: tuple[Variant, ...]
    full_model: str | None


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
    try:
        data = toml.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a suite: it is not text") from None
    except toml.TOMLDecodeError as error:
        raise UserError(f"{path} is not a suite: not TOML, {error}") from None
    reader = _Reader(data)
    suite = Suite(
        name=path.stem,
        summary=reader.take("summary", str, ""),
        preset=reader.take("preset", str, "", required=True),
        seeds=reader.seeds(),
        settings=reader.settings("settings"),
        grid=reader.grid(),
        variants=reader.variants(),
        full_model=reader.take("full_model", str, None),
    )
    reader.finish()
    if not _NAME.fullmatch(suite.name):
        reader.problems.append(f"its name {suite.name!r}: use letters, digits, '_', '.' and '-'")
    if suite.preset and suite.preset not in PRESETS:
        reader.problems.append(unknown_name("preset", suite.preset, PRESETS))
    reader.problems += _variant_problems(suite)
    raise_problems([f"suite {path}: {problem}" for problem in reader.problems])
    return suite


def _variant_problems(suite: Suite) -> list[str]:
    found = []
    trained = [variant.name for variant in suite.variants if variant.evaluates is None]
    names = [variant.name for variant in suite.variants]
    for variant in suite.variants:
        if names.count(variant.name) > 1:
            found.append(f"variant {variant.name!r} is listed more than once: give each its own name")
        if variant.program not in PROGRAMS:
            found.append(unknown_name("program", variant.program, PROGRAMS))
        if variant.evaluates is None:
            if variant.reset is not None:
                found.append(
                    f"variant {variant.name!r} gives reset without evaluates: "
                    f'write settings = {{ reset = "{variant.reset}" }} to train with it'
                )
            continue
        if variant.evaluates not in trained:
            found.append(unknown_name("variant to evaluate", variant.evaluates, trained))
        if variant.settings or variant.program != "train":
            found.append(f"variant {variant.name!r} trains nothing: leave its settings and program out")
        try:
            parse_reset("" if variant.reset is None else variant.reset)
        except UserError as error:
            found.append(f"variant {variant.name!r}: {error}")
    return list(dict.fromkeys(found))


class _Reader:
    """Takes what it knows out of a TOML table and notes what is wrong."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self.problems: list[str] = []

    def take(self, key: str, kind: type, default: Any, *, required: bool = False) -> Any:
        if key not in self._data:
            if required:
                self.problems.append(f"{key} is missing")
            return default
        value = self._data.pop(key)
        if isinstance(value, kind) and not (kind is not bool and isinstance(value, bool)):
            return value
        words: dict[Any, str] = {str: "a text", list: "a list [...]", dict: "a table"}
        self.problems.append(f"{key} is {value!r}: give {words[kind]}")
        return default

    def seeds(self) -> tuple[int, ...]:
        seeds = self.take("seeds", list, [0])
        if not seeds or any(type(seed) is not int for seed in seeds) or len(set(seeds)) < len(seeds):
            self.problems.append(f"seeds is {seeds!r}: give different whole numbers, at least one")
            return (0,)
        return tuple(seeds)

    def settings(self, key: str) -> dict[str, Value]:
        return self._flat(self.take(key, dict, {}))

    def grid(self) -> dict[str, tuple[Value, ...]]:
        flat = self._flat(self.take("grid", dict, {}), lists_of_lists=True)
        found: dict[str, tuple[Value, ...]] = {}
        for name, values in flat.items():
            if name == "seed":
                self.problems.append("grid.seed: list seeds as seeds = [0, 1]")
            elif not isinstance(values, tuple) or not values:
                self.problems.append(f"grid.{name} is {values!r}: give a list of at least one value")
            elif len({str(value) for value in values}) < len(values):
                self.problems.append(f"grid.{name} lists a value twice")
            else:
                found[name] = values
        return found

    def variants(self) -> tuple[Variant, ...]:
        found = []
        for number, table in enumerate(self.take("variant", list, [{}]), 1):
            if not isinstance(table, dict):
                self.problems.append(f"variant is {table!r}: write [[variant]] above each")
                continue
            inner = _Reader(dict(table))
            name = inner.take("name", str, "", required=bool(table))
            variant = Variant(
                name=name,
                label=inner.take("label", str, name),
                settings=inner.settings("settings"),
                program=inner.take("program", str, "train"),
                evaluates=inner.take("evaluates", str, None),
                reset=inner.take("reset", str, None),
            )
            if name and not _NAME.fullmatch(name):
                inner.problems.append(f"name {name!r}: use letters, digits, '_', '.' and '-'")
            inner.finish([item.name for item in fields(Variant)])
            self.problems += [f"variant {name or number}: {problem}" for problem in inner.problems]
            found.append(variant)
        return tuple(found) or (Variant(),)

    def finish(self, known: list[str] | None = None) -> None:
        """Note what nobody has taken."""
        known = known or [item.name for item in fields(Suite) if item.name not in ("name", "variants")]
        self.problems += [unknown_name("key", key, [*known, "variant"]) for key in self._data]

    def _flat(
        self, table: Mapping[str, Any], prefix: str = "", *, lists_of_lists: bool = False
    ) -> dict[str, Any]:
        """Nested tables as dotted names, lists as tuples."""
        found: dict[str, Any] = {}
        for key, value in table.items():
            if isinstance(value, dict):
                found |= self._flat(value, f"{prefix}{key}.", lists_of_lists=lists_of_lists)
                continue
            items = value if isinstance(value, list) else [value]
            inner = [
                x for item in items for x in (item if lists_of_lists and isinstance(item, list) else [item])
            ]
            if any(not isinstance(item, (str, int, float)) for item in inner):
                self.problems.append(f"{prefix}{key} is {value!r}: give texts, numbers, true or false")
                continue
            found[prefix + key] = _tuples(value)
        return found


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
