"""What every benchmark gives: figures that are ratios, a table of them, and a file."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agents.allocator import keep_large_buffers
from benchmarks.machine import describe_machine
from common.cli import Flag, parse_options, run_command
from common.errors import UserError


@dataclass(frozen=True)
class Figure:
    """One measured ratio.

    Attributes:
        name: what was measured.
        against: what it is divided by, measured in the same run.
        ratio: times as fast, or as much.
        aim: what the project wants `ratio` to be at least, or (`at_most`) at most; None where it wants nothing.
        at_most: whether the aim is an upper bound.
        facts: what the ratio was made of, by name with unit ("ours steps/s"); for information only, since such
            numbers differ from machine to machine.
    """

    name: str
    against: str
    ratio: float
    aim: float | None = None
    at_most: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None if there is none."""
        if self.aim is None:
            return None
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim


Measure = Callable[[bool], Sequence[Figure]]
"""Takes whether to be quick, and gives figures."""


@dataclass(frozen=True)
class Settings:
    """Measure, and print a table of ratios.

    Attributes:
        quick: fewer shapes and repetitions.
        json: file to write, besides the table.
        threads: of torch; none for torch's own choice.
    """

    quick: Flag = False
    json: Path | None = None
    threads: int | None = None


def best_seconds(parts: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Shortest time of each part. The parts take turns, so that what else the machine does meets all of them."""
    best = dict.fromkeys(parts, float("inf"))
    for part in parts.values():
        part()  # the first time costs extra: allocations, choices of kernels
    for _ in range(repetitions):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def print_figures(title: str, figures: Sequence[Figure], console: Console) -> None:
    """The table that a person reads."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("measured", "against"):
        table.add_column(column)
    for column in ("ratio", "aim", ""):
        table.add_column(column, justify="right")
    table.add_column("made of")
    for figure in figures:
        bound = "at most" if figure.at_most else "at least"
        table.add_row(
            figure.name,
            figure.against,
            f"{figure.ratio:.2f}",
            "" if figure.aim is None else f"{bound} {figure.aim:g}",
            {None: "", True: "yes", False: "no"}[figure.reached],
            ", ".join(f"{name} {value:,.4g}" for name, value in figure.facts.items()),
        )
    console.print(table)


def write_figures(path: Path, figures: Sequence[Figure]) -> None:
    """Figures, machine and command as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    record = {
        "command": shlex.join(["python", "-m", *_module_and_words()]),
        "machine": describe_machine(),
        "figures": [{**asdict(figure), "reached": figure.reached} for figure in figures],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def _module_and_words() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = Path(sys.argv[0]).stem if spec is None else spec.name.removesuffix(".__main__")
    return [name, *sys.argv[1:]]


def main(title: str, measure: Measure) -> int:
    """The command line of one benchmark; returns the exit code."""

    def run() -> int:
        settings = parse_options(
            Settings, sys.argv[1:], shlex.join(["python", "-m", _module_and_words()[0]]), ""
        )
        if settings.json is not None and not settings.json.parent.is_dir():
            raise UserError(
                f"--json {settings.json} cannot be written, there is no directory {settings.json.parent}"
            )
        if settings.threads is not None:
            if settings.threads < 1:
                raise UserError(f"--threads must be at least 1, not {settings.threads}")
            torch.set_num_threads(settings.threads)
        keep_large_buffers()  # as every agent does
        figures = measure(settings.quick)
        print_figures(title, figures, Console(highlight=False))
        if settings.json is not None:
            write_figures(settings.json, figures)
        return 0

    return run_command(run)
