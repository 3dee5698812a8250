"""``python train.py suite NAME``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from common.cli import without_box
from common.errors import UserError, raise_problems, unknown_name
from experiments.suites import definition
from experiments.suites.display import print_plan, show
from experiments.suites.plan import Options, Plan, conflicts, make_plan
from experiments.suites.runner import Runner
from experiments.suites.status import measured_speeds, run_directories, status_of
from records.directory import RUNS
from records.validation import device_problems

PROGRAM = "python train.py suite"


def _words(metavar: str, default: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True)
class Arguments:
    """Make the runs of a suite that are missing. Stop it and start it again at any time.

    Options of train.py after a lone -- hold for every run: -- --precision bfloat16 --torch-threads 1

    Attributes:
        suite: a suite that ships, or a .toml file of your own.
        scale: factor of all step budgets, for a rehearsal, which goes to a directory of its own.
        seeds: in place of the suite's own.
        games: one run for each, in suites of single-game runs.
        only: runs whose names match one of these patterns.
        jobs: how many runs at once.
        devices: given to the runs in turn: auto, cpu, cuda:0 ...
        runs: where the directory of the suite goes.
        dry_run: show the runs and what they cost, and start nothing.
    """

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE")]
    scale: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    seeds: Annotated[tuple[int, ...], _words("N ...", "those of the suite")] = ()
    games: Annotated[tuple[str, ...], _words("GAME ...", "those of the suite")] = ()
    only: Annotated[tuple[str, ...], _words("PATTERN ...", "all")] = ()
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE ...")] = ("auto",)
    runs: Annotated[str, tyro.conf.arg(metavar="DIR")] = str(RUNS)
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False


def main(words: Sequence[str]) -> int:
    """Make what is missing of the suite that `words` name; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    arguments, extra = parse(words)
    plan = prepare(arguments, extra)
    console = Console(highlight=False, markup=False)
    root = Path(arguments.runs)
    statuses = {planned.name: status_of(planned) for planned in plan.runs}
    speeds = measured_speeds([*run_directories(root), *run_directories(plan.directory)])
    if arguments.dry_run:
        print_plan(plan, statuses, speeds, arguments.jobs, console)
        return 0
    runner = Runner(plan, arguments.jobs, arguments.devices)
    with show(console, speeds) as on_change:
        code = runner.carry_out(on_change)
    for job in runner.jobs:
        if job.failure is not None:
            log = runner.log_of(job.planned)
            console.print(f"{job.planned.name} failed, {job.failure}; all it said: {log}", soft_wrap=True)
    again = " ".join([PROGRAM, *words])
    if code == 0:
        console.print(f"All {len(runner.jobs)} runs are done: {plan.directory}", soft_wrap=True)
        console.print(f"Next: python eval.py report {plan.directory} --out REPORT_DIR", soft_wrap=True)
    else:
        console.print(f"Continue with: {again}", soft_wrap=True)
    return code


def overview() -> str:
    """What can be asked, and the suites that ship."""
    suites = {name: definition.read(path) for name, path in definition.shipped().items()}
    width = max(map(len, suites))
    lines = [
        "Make a named set of runs; what has been made already is not made again.",
        "",
        f"  {PROGRAM} SUITE [OPTIONS] [-- OPTIONS OF EVERY RUN]",
        f"  {PROGRAM} FILE.toml           a suite of your own",
        f"  {PROGRAM} SUITE --dry-run     show the runs and what they cost",
        f"  {PROGRAM} SUITE --help        every option",
        "",
        "Suites:",
        *(f"  {name:{width}}  {suite.summary}" for name, suite in suites.items()),
        "",
        "For example:",
        f"  {PROGRAM} paper-easy6 --scale 0.001 --seeds 0 1 --jobs 2",
        f"  {PROGRAM} paper-experts --games maze heist --devices cuda:0 cuda:1 --jobs 2",
    ]
    return "\n".join(lines)


def parse(words: Sequence[str]) -> tuple[Arguments, list[str]]:
    """The options of the suite, and those after ``--``.

    Raises:
        UserError: they cannot be read.
        SystemExit: after showing the help, code 0.
    """
    own, extra = list(words), []
    if "--" in own:
        border = own.index("--")
        own, extra = own[:border], own[border + 1 :]
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            arguments, unknown = tyro.cli(Arguments, prog=PROGRAM, args=own, return_unknown_args=True)
    except SystemExit as exit:
        if not exit.code:
            raise
        if "Required options" in screen.getvalue():
            raise UserError(f"name a suite: {', '.join(definition.shipped())}, or a .toml file") from None
        raise UserError(f"{without_box(screen.getvalue())}; see {PROGRAM} SUITE --help") from None
    if unknown:
        known = ["--" + item.name.replace("_", "-") for item in fields(Arguments) if item.name != "suite"]
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not names:
            raise UserError(f"unexpected {' '.join(unknown)}: name one suite; see {PROGRAM} SUITE --help")
        hint = "options of train.py follow a lone --"
        raise_problems([f"{unknown_name('option', name, known)}; {hint}" for name in names])
    return arguments, extra


def prepare(arguments: Arguments, extra: Sequence[str]) -> Plan:
    """What `arguments` ask for.

    Raises:
        UserError: naming everything that is wrong with it.
    """
    problems = [problem for name in arguments.devices for problem in device_problems(name)]
    if arguments.jobs < 1:
        problems.append(f"--jobs is {arguments.jobs}: give 1 or more")
    if not arguments.devices:
        problems.append("--devices names none: give auto, cpu or cuda")
    raise_problems(problems)
    suite = definition.read(definition.find(arguments.suite))
    options = Options(
        scale=arguments.scale,
        seeds=arguments.seeds,
        games=arguments.games,
        words=tuple(extra),
        runs=Path(arguments.runs),
    )
    plan = make_plan(suite, options)
    if arguments.only:
        chosen = tuple(
            run for run in plan.runs if any(fnmatch(run.name, pattern) for pattern in arguments.only)
        )
        if not chosen:
            names = ", ".join(run.name for run in plan.runs)
            raise UserError(f"--only {' '.join(arguments.only)} matches no run: there are {names}")
        plan = Plan(plan.suite, plan.options, plan.directory, chosen, plan.reevaluations)
    raise_problems([problem for planned in plan.runs for problem in conflicts(planned)])
    return plan
