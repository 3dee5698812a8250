"""``python train.py suite NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Annotated

from rich.console import Console

from common.cli import Flag, Shown, parse_options
from common.config import Range
from common.config import problems as config_problems
from common.errors import UserError, raise_problems
from experiments.suites import definition
from experiments.suites.display import print_plan, show
from experiments.suites.plan import Options, Plan, conflicts, make_plan
from experiments.suites.runner import Runner, jobs_of
from records.state import measured_speeds, run_directories
from records.validation import device_problems

PROGRAM = "python train.py suite"


@dataclass(frozen=True)
class Arguments(Options):
    """Make the runs of a suite that are missing. Stop it and start it again at any time.

    Options of train.py after a lone -- hold for every run: -- --precision bfloat16 --torch-threads 1

    Attributes:
        suite: a suite that ships, or a .toml file of your own.
        only: runs whose names match one of these patterns.
        jobs: how many runs at once.
        devices: given to the runs in turn: auto, cpu, cuda:0 ...
        dry_run: show the runs and what they cost, and start nothing.
    """

    suite: Annotated[str, Shown("SUITE")] = field(kw_only=True)
    only: Annotated[tuple[str, ...], Shown("PATTERN ...", "all")] = ()
    jobs: Annotated[int, Range(1)] = 1
    devices: Annotated[tuple[str, ...], Shown("DEVICE ...")] = ("auto",)
    dry_run: Flag = False


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
    speeds = measured_speeds([*run_directories(arguments.runs), *run_directories(plan.directory)])
    if arguments.dry_run:
        print_plan(plan, jobs_of(plan), speeds, arguments.jobs, console)
        return 0
    runner = Runner(plan, arguments.jobs, arguments.devices)
    with show(console, speeds) as on_change:
        code = runner.run(on_change)
    lines = [
        f"{job.planned.name} failed, {job.failure}; all it said: {runner.log_of(job.planned)}"
        for job in runner.jobs
        if job.failure is not None
    ]
    if code == 0:
        lines.append(f"All {len(runner.jobs)} runs are done: {plan.directory}")
        lines.append(f"Next: python eval.py report {plan.directory} --out REPORT_DIR")
    else:
        lines.append(f"Continue with: {' '.join([PROGRAM, *words])}")
    for line in lines:
        console.print(line, soft_wrap=True)
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
    return parse_options(Arguments, own, PROGRAM, "suite"), extra


def prepare(arguments: Arguments, extra: Sequence[str]) -> Plan:
    """What `arguments` ask for.

    Raises:
        UserError: naming everything that is wrong with it.
    """
    problems = [problem for name in arguments.devices for problem in device_problems(name)]
    if not arguments.devices:
        problems.append("--devices names none: give auto, cpu or cuda")
    raise_problems([*config_problems(arguments, "--"), *problems])
    plan = make_plan(definition.read(definition.find(arguments.suite)), arguments, extra)
    if arguments.only:
        chosen = tuple(
            run for run in plan.runs if any(fnmatch(run.name, pattern) for pattern in arguments.only)
        )
        if not chosen:
            names = ", ".join(run.name for run in plan.runs)
            raise UserError(f"--only {' '.join(arguments.only)} matches no run: there are {names}")
        plan = replace(plan, runs=chosen)
    raise_problems([problem for planned in plan.runs for problem in conflicts(planned)])
    return plan
