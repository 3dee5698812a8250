"""``python train.py suite NAME``, and what it shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Annotated

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from common.cli import Flag, Shown, parse_options
from common.config import OneOf, Range
from common.config import problems as config_problems
from common.errors import UserError, raise_problems
from experiments.processes import share_problems
from experiments.progress import Display, duration
from experiments.suites import definition
from experiments.suites.jobs import (
    CLUSTERS,
    ClusterStarter,
    LocalStarter,
    Starter,
    parsed_options,
)
from experiments.suites.plan import Options, Plan, conflicts, make_plan
from experiments.suites.runner import Job, Runner, jobs_of
from records.config import device_problems
from records.state import Phase, Speeds, kind_of, measured_speeds, run_directories

PROGRAM = "python train.py suite"
LINE_SECONDS = 30.0
ASSUMED_SPEED = 400.0
"""Environment steps per second where nothing has been measured: one core of a present CPU."""
_UNLIMITED = 10_000


@dataclass(frozen=True)
class Arguments(Options):
    """Make the runs of a suite that are missing. Stop it and start it again at any time.

    Options of train.py after a lone -- hold for every run: -- --precision bfloat16 --torch-threads 1

    Attributes:
        suite: a suite that ships, or a .toml file of your own.
        only: runs whose names match one of these patterns.
        jobs: how many runs at once.
        devices: given to the runs in turn: auto, cpu, cuda:0 ...
        processes: that share each run, on each of its machines; each has a GPU, or its share of the cores.
        cluster: make each run a job of a cluster: slurm, or local to try it on this machine.
        cluster_options: NAME=VALUE for submitit's executor: timeout_min, nodes, gpus_per_node, slurm_partition ...
        dry_run: show the runs and what they cost, and start nothing.
    """

    suite: Annotated[str, Shown("SUITE")] = field(kw_only=True)
    only: Annotated[tuple[str, ...], Shown("PATTERN ...", "all")] = ()
    jobs: Annotated[int | None, Range(1, 1024), Shown("N", "1; all on a cluster")] = None
    devices: Annotated[tuple[str, ...], Shown("DEVICE ...")] = ("auto",)
    processes: Annotated[int, Range(1)] = 1
    cluster: Annotated[str | None, OneOf(CLUSTERS, "cluster"), Shown("|".join(CLUSTERS), "none")] = None
    cluster_options: Annotated[tuple[str, ...], Shown("NAME=VALUE ...", "submitit's own")] = ()
    dry_run: Flag = False


def main(words: Sequence[str]) -> int:
    """Make what is missing of the suite that `words` name; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
        SystemExit: after showing the help of a suite, code 0.
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    border = words.index("--") if "--" in words else len(words)
    arguments = parse_options(Arguments, words[:border], PROGRAM, "suite")
    plan = prepare(arguments, words[border + 1 :])
    console = Console(highlight=False, markup=False)
    speeds = measured_speeds([*run_directories(arguments.runs), *run_directories(plan.directory)])
    at_once = arguments.jobs or (1 if arguments.cluster is None else len(plan.runs))
    if arguments.dry_run:
        print_plan(plan, jobs_of(plan), speeds, at_once, console)
        return 0
    runner = Runner(plan, at_once, arguments.devices, starter_of(arguments, at_once, plan))
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


def starter_of(arguments: Arguments, at_once: int, plan: Plan) -> Starter:
    """How the runs are started. Raises `UserError` if they cannot be started so."""
    if arguments.cluster is None:
        return LocalStarter(at_once, arguments.processes)
    options = parsed_options(arguments.cluster_options)
    return ClusterStarter(arguments.cluster, plan.directory / "jobs", options, arguments.processes)


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
        f"  {PROGRAM} paper-easy6 --cluster slurm --cluster-options timeout_min=4320 gpus_per_node=1",
    ]
    return "\n".join(lines)


def prepare(arguments: Arguments, extra: Sequence[str]) -> Plan:
    """What `arguments` ask for. Raises `UserError`, naming everything that is wrong with it."""
    # The machines of a cluster have devices of their own.
    local = arguments.devices if arguments.cluster is None else ()
    problems = [problem for name in local for problem in device_problems(name)]
    if not arguments.devices:
        problems.append("--devices names none: give auto, cpu or cuda")
    if arguments.cluster_options and arguments.cluster is None:
        problems.append("--cluster-options are for jobs of a cluster: give --cluster, too")
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
    processes = arguments.processes * int(parsed_options(arguments.cluster_options).get("nodes", 1))
    found = [problem for planned in plan.runs for problem in share_problems(planned.config, processes)]
    raise_problems([*found, *(problem for planned in plan.runs for problem in conflicts(planned))])
    return plan


# What is shown


@dataclass(frozen=True)
class Cost:
    """What is left to do.

    Attributes:
        seconds: of computing, one run after another; the final evaluations come on top.
        measured: whether every speed was measured, none assumed.
    """

    steps: int
    seconds: float
    measured: bool


def cost_of(jobs: Iterable[Job], speeds: Speeds) -> Cost:
    """What those of `jobs` still cost that have not failed, with `speeds` where a run has none of its own."""
    steps, seconds, measured = 0, 0.0, True
    for job in jobs:
        # A run that was stopped goes on from its checkpoint.
        made = job.state.saved if job.process is None else job.state.reached
        left = max(0, job.planned.config.total_steps - made)
        if left and job.failure is None and job.state.phase is not Phase.FINISHED:
            speed = _speed(job, speeds)
            steps += left
            seconds += left / (speed or ASSUMED_SPEED)
            measured = measured and speed is not None
    return Cost(steps, seconds, measured)


def _speed(job: Job, speeds: Speeds) -> float | None:
    config = job.planned.config
    return job.state.speed or speeds.get(kind_of(config))


def print_plan(plan: Plan, jobs: Sequence[Job], speeds: Speeds, at_once: int, console: Console) -> None:
    """The runs and what they cost, for --dry-run."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_UNLIMITED, highlight=False)
    table = _table(["run", "label", "state"], ["steps", "steps/s", "hours"])
    for job in jobs:
        total, speed = job.planned.config.total_steps, _speed(job, speeds)
        table.add_row(
            job.planned.name,
            job.planned.label,
            job.state.phase.value,
            f"{total:,}",
            f"{speed:,.0f}" if speed else f"{ASSUMED_SPEED:,.0f}?",
            f"{total / (speed or ASSUMED_SPEED) / 3600:,.2f}",
        )
    for item in plan.reevaluations:
        table.add_row(item.group, item.label, f"evaluation of {item.of}", "-", "-", "-")
    console.print(table)
    cost = cost_of(jobs, speeds)
    guess = "" if cost.measured else f" ('?': assumed, no run of that kind was found in {plan.options.runs})"
    console.print(
        f"{len(plan.runs)} runs in {plan.directory}; left: {cost.steps:,} steps, about "
        f"{cost.seconds / 3600 / at_once:,.2f} hours with {at_once} at a time{guess}, and the final evaluations",
        soft_wrap=True,
    )


def _table(texts: Sequence[str], numbers: Sequence[str], caption: str | None = None) -> Table:
    columns = [Column(name, no_wrap=name == "run") for name in texts]
    columns += [Column(name, no_wrap=True, justify="right") for name in numbers]
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")


@contextmanager
def show(console: Console, speeds: Speeds) -> Iterator[Callable[[Runner], None]]:
    """Within this context, what it gives can be passed to `Runner.run`.

    A terminal gets a table that moves; elsewhere there is a line for everything that happens, and one now and then.
    """
    runner: Runner
    states: dict[str, str] = {}

    def line() -> str:
        at = [f"{job.planned.name} at {job.state.reached:,}" for job in runner.running]
        return _stamped("; ".join([summary(runner, speeds), *at]))

    display = Display(console, lambda: _live_table(runner, speeds, console.height - 6), line, LINE_SECONDS)

    def on_change(changed: Runner) -> None:
        nonlocal runner
        runner = changed
        for job in runner.jobs if not console.is_terminal else ():
            state = str(state_text(job))
            kind = state.split(" at ")[0]
            if states.get(job.planned.name, Phase.MISSING.value) != kind:
                display.say(_stamped(f"{job.planned.name}: {state}"))
            states[job.planned.name] = kind
        display.update()

    try:
        yield on_change
    finally:
        display.close()


def _stamped(line: str) -> str:
    return f"{time.strftime('%H:%M:%S')}  {line}"


def summary(runner: Runner, speeds: Speeds) -> str:
    """Done, failed, time left."""
    done = sum(job.state.phase is Phase.FINISHED for job in runner.jobs)
    parts = [f"{done} of {len(runner.jobs)} runs done"]
    if failed := sum(job.failure is not None for job in runner.jobs):
        parts.append(f"{failed} failed")
    if seconds := cost_of(runner.jobs, speeds).seconds:
        parts.append(f"about {duration(seconds / runner.at_once)} of training left")
    return ", ".join(parts)


def _live_table(runner: Runner, speeds: Speeds, room: int) -> Table:
    table = _table(["run", "state"], ["steps", "", "steps/s"], summary(runner, speeds))
    for job in rows_to_show(runner, room):
        total, at = job.planned.config.total_steps, job.state.reached
        speed = f"{job.state.speed:,.0f}" if job.state.speed else ""
        table.add_row(job.planned.name, state_text(job), f"{at:,}", f"{min(1.0, at / total):4.0%}", speed)
    return table


def state_text(job: Job) -> Text:
    """What a run is doing."""
    if job.failure is not None:
        return Text(f"failed, {job.failure}", style="red")
    if job.process is not None:
        if job.state.saved >= job.planned.config.total_steps:
            return Text("evaluating", style="green")
        since = f", continued at {job.started_at:,}" if job.started_at else ""
        return Text(f"running{since}", style="green")
    if job.state.phase is Phase.FINISHED:
        return Text("done", style="cyan")
    if job.elsewhere:
        return Text("running in another process", style="yellow")
    if job.state.phase is Phase.UNFINISHED:
        return Text(f"unfinished at {job.state.saved:,}", style="yellow")
    return Text("not started", style="dim")


def rows_to_show(runner: Runner, room: int) -> list[Job]:
    """The jobs that fit into `room` lines: those that run or failed first, then what is next, then what is done."""

    def urgency(job: Job) -> int:
        if job.process is not None or job.failure is not None:
            return 0
        return 2 if job.state.phase is Phase.FINISHED else 1

    kept = sorted(runner.jobs, key=urgency)[: max(3, room)]
    return [job for job in runner.jobs if job in kept]
