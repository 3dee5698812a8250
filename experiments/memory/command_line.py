"""``python train.py memory GRID``, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import MISSING, dataclass, replace
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch

from common.cli import Flag, Shown, parse_known, unknown_options
from common.config import Option, Range, assign, options
from common.config import problems as config_problems
from common.errors import UserError, raise_problems
from experiments.memory import grid as grids
from experiments.memory import report
from experiments.memory.grid import Grid, Lists, Planned
from experiments.memory.results import Results
from experiments.memory.settings import every_setting
from experiments.memory.tasks import TASKS
from experiments.memory.training import Outcome, train
from experiments.progress import duration
from policies.registry import CORES
from records.directory import RUNS

PROGRAM = "python train.py memory"
MAX_JOBS = 256


@dataclass(frozen=True)
class Arguments:
    """Train cores on memory tasks and compare them; cells that were made already are not made again.

    A setting that is given several values is tried with each of them.

    Attributes:
        grid: a grid that ships, or a .toml file of your own.
        only: rows whose labels match one of these patterns.
        jobs: how many cells at once, each with one thread.
        out: where results, tables and curves go.
        dry_run: list the cells, and make none.
    """

    grid: Annotated[str, Shown("GRID")] = ""
    only: Annotated[tuple[str, ...], Shown("PATTERN ...", "all")] = ()
    jobs: Annotated[int, Range(1, MAX_JOBS)] = 1
    out: Annotated[Path | None, Shown("DIR", f"{RUNS}/memory/GRID")] = None
    dry_run: Flag = False


def main(words: Sequence[str]) -> int:
    """Make the cells that `words` ask for and are missing, and show all of them; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
        SystemExit: after showing the options, code 0.
    """
    if not words or words == ["-h"] or words == ["--help"]:
        print(overview())
        return 0
    arguments, grid, given = parse(words)
    planned = [one for one in grids.plan(grid, given) if _chosen(one.label, arguments.only)]
    if not planned:
        raise UserError(f"--only {' '.join(arguments.only)} matches no row: see them with --dry-run")
    directory = arguments.out or RUNS / "memory" / grid.name
    results = Results(directory)
    missing = [one for one in planned if one.cell not in results.outcomes]
    if arguments.dry_run:
        _list(planned, results)
        return 0
    _say(f"{len(planned)} cells, {len(planned) - len(missing)} of them made before; results: {results.file}")
    for number, (one, outcome) in enumerate(_outcomes(missing, arguments.jobs), 1):
        results.add(one.cell, outcome)
        _say(f"{number}/{len(missing)}  {_name(one)}: {_summary(outcome)}")
    every = report.rows(planned, results)
    page = report.write_page(directory, f"Memory tasks: {grid.summary or grid.name}", every)
    print(f"\n{report.tables(every)}\nTables and curves: {page}")
    return 0


def overview() -> str:
    """What can be asked, without options."""
    known = {name: grids.read(path).summary for name, path in grids.shipped().items()}
    width = max(map(len, [*known, *TASKS]))
    lines = [
        "Train cores on small tasks that nobody solves without memory, and compare them.",
        "",
        f"  {PROGRAM} GRID [OPTIONS]     make the cells of a grid that are missing, and show the tables",
        f"  {PROGRAM} FILE.toml          a grid of your own",
        f"  {PROGRAM} GRID --dry-run     list the cells, and make none",
        f"  {PROGRAM} GRID --help        every option",
        "",
        "Grids:",
        *(f"  {name:{width}}  {summary}" for name, summary in known.items()),
        "",
        "Tasks (--task):",
        *(f"  {name:{width}}  {task.summary}" for name, task in TASKS.items()),
        "",
        f"Cores (--policy):  {', '.join(CORES)}",
        "",
        "For example:",
        f"  {PROGRAM} short --jobs 2",
        f"  {PROGRAM} short --task cue-15 --policy srwm deltanet --reset episode 5 --seed 0 1 2",
    ]
    return "\n".join(lines)


def parse(words: Sequence[str]) -> tuple[Arguments, Grid, Lists]:
    """What `words` ask for: options of the command, the grid, and settings in place of the grid's.

    Raises:
        UserError: naming everything that is wrong with them, but for the values of settings.
        SystemExit: after showing the options, code 0.
    """
    own = {option.name: option for option in options(Arguments())}
    place, settings = own.pop("grid"), _settings()
    known = [*own.values(), *settings.values()]
    description = str(Arguments.__doc__).partition("\n\n    Attributes:")[0]
    titles = {"": "options", "core": "core (for the cores that have it)"}
    values, rest = parse_known(words, PROGRAM, description, known, place, titles)
    wrong = unknown_options(rest, known, f"all options: {PROGRAM} GRID --help")
    if not wrong and len(rest) != 1:
        wrong = [f"name one grid before the options: {', '.join(grids.shipped())}, or a .toml file"]
    arguments = assign(Arguments(), {name: values[name] for name in own if name in values}, wrong)
    raise_problems([*wrong, *config_problems(arguments, "--")])
    return arguments, grids.read(grids.find(rest[0])), _given(values, settings)


def _settings() -> dict[str, Option]:
    """Every setting of a cell, as an option that takes several values."""
    return {
        name: replace(option, type=replace(option.type, is_tuple=True), value=MISSING)
        for name, option in every_setting().items()
    }


def _given(values: Mapping[str, Any], settings: Mapping[str, Option]) -> Lists:
    return grids.lists({name: value for name, value in values.items() if name in settings})


def _chosen(label: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch(label, pattern) for pattern in patterns)


def _outcomes(planned: Sequence[Planned], jobs: int) -> Iterator[tuple[Planned, Outcome]]:
    """The cells and what came out of them, as they are done."""
    if jobs == 1:
        torch.set_num_threads(1)
        yield from ((one, train(one.cell)) for one in planned)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: dict[Future[Outcome], Planned] = {pool.submit(train, one.cell): one for one in planned}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _name(one: Planned) -> str:
    return f"{one.cell.task}, {one.label}, seed {one.cell.seed}"


def _summary(outcome: Outcome) -> str:
    level, update = next(iter(outcome.reached.items()))
    when = f"{level} after {update}" if update else f"{level} not reached"
    return f"{outcome.test:.2f} at the end, {when}, {duration(outcome.seconds)}"


def _list(planned: Sequence[Planned], results: Results) -> None:
    for one in planned:
        made = results.outcomes.get(one.cell)
        print(f"{_name(one)}: {'missing' if made is None else _summary(made)}")


def _say(line: str) -> None:
    print(line, flush=True)
