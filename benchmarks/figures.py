"""What every benchmark gives: figures that are ratios, shown as soon as they are known, in a table, and in a file."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.device import keep_large_buffers
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

    def __str__(self) -> str:
        aim = {None: "", True: " (reached)", False: " (missed)"}[self.reached]
        wanted = f", aim {self.bound}{aim}" if self.aim is not None else ""
        return f"{self.name}: {self.ratio:.2f} x {self.against}{wanted}"

    @property
    def bound(self) -> str:
        """The aim in words: "at least 0.9"; "" without one."""
        return "" if self.aim is None else f"at {'most' if self.at_most else 'least'} {self.aim:g}"

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None if there is none."""
        if self.aim is None:
            return None
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim


@dataclass(frozen=True)
class Part:
    """A piece of a benchmark.

    Attributes:
        name: The benchmark and what is measured, as in "network: encoder".
        run: Measures it, and returns the figures that are known now.
    """

    name: str
    run: Callable[[], Sequence[Figure]]


Parts = Callable[[bool], Sequence[Part]]
"""The parts of a benchmark; takes whether to be quick."""


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


def best_seconds(
    parts: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Shortest time of each part. The parts take turns, so that what else the machine does meets all of them."""
    best = dict.fromkeys(parts, float("inf"))
    for part in parts.values():
        part()  # the first time costs extra: allocations, choices of kernels
    for _ in range(repetitions):
        for name, part in parts.items():
            began = clock()
            part()
            best[name] = min(best[name], clock() - began)
    return best


def measure(parts: Sequence[Part], console: Console) -> Iterator[Figure]:
    """Run `parts`, and say what is being measured and what is left; each figure is shown as soon as it is known."""
    status = _Status()
    # Once a second: more would take time from what is measured.
    live = Live(status, console=console, refresh_per_second=1, transient=True)
    with live if console.is_terminal else nullcontext():
        for number, part in enumerate(parts, 1):
            status.part = f"[{number}/{len(parts)}] {part.name}"
            left = Counter(later.name.partition(":")[0] for later in parts[number:])
            status.left = ", ".join(f"{name} {count}" for name, count in left.items()) or "nothing"
            if console.is_terminal:
                live.refresh()
            else:
                console.print(status)
            for figure in part.run():
                console.print(f"  {figure}", markup=False, highlight=False)
                yield figure


class _Status:
    """What is being measured, for how long everything has been, and what is left."""

    def __init__(self) -> None:
        self.part = self.left = ""
        self._began = time.monotonic()

    def __rich__(self) -> Text:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        text = f"{self.part}   {minutes}:{seconds:02} min, left: {self.left}"
        return Text(text, no_wrap=True, overflow="ellipsis")


def print_figures(title: str, figures: Sequence[Figure], console: Console) -> None:
    """The table that a person reads."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("measured", "against"):
        table.add_column(column)
    for column in ("ratio", "aim", ""):
        table.add_column(column, justify="right")
    table.add_column("made of")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.against,
            f"{figure.ratio:.2f}",
            figure.bound,
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


def main(title: str, parts: Parts) -> int:
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
        console, figures = Console(highlight=False, soft_wrap=True), list[Figure]()
        try:
            for figure in measure(parts(settings.quick), console):
                figures.append(figure)
        finally:  # also when something fails, or after Ctrl-C: minutes were spent on them
            if figures:
                print_figures(title, figures, console)
        if settings.json is not None:
            write_figures(settings.json, figures)
        return 0

    return run_command(run)
