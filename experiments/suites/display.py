"""What a suite shows: a live table on a terminal, a line whenever something happens elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.progress import duration
from experiments.suites.plan import Plan
from experiments.suites.runner import Job, Runner
from records.config import TrainConfig
from records.state import Phase, RunState, Speeds

LINE_SECONDS = 30.0
ASSUMED_SPEED = 400.0
"""Environment steps per second where nothing has been measured: one core of a present CPU."""
_UNLIMITED = 10_000


@dataclass(frozen=True)
class Cost:
    """What is left to do.

    Attributes:
        steps: environment steps.
        seconds: of computing, one run after another; the final evaluations come on top.
        measured: whether every speed was measured, none assumed.
    """

    steps: int
    seconds: float
    measured: bool


def cost_of(plan: Plan, states: Mapping[str, RunState], speeds: Speeds) -> Cost:
    """What the runs of `plan` still cost, with `states` by name of run and `speeds` by policy and algorithm."""
    steps, seconds, measured = 0, 0.0, True
    for planned in plan.runs:
        state = states[planned.name]
        left = max(0, planned.config.total_steps - state.saved) if state.phase is not Phase.FINISHED else 0
        speed = state.speed or speeds.get(_kind(planned.config))
        measured = measured and (speed is not None or left == 0)
        steps += left
        seconds += left / (speed or ASSUMED_SPEED)
    return Cost(steps, seconds, measured)


def print_plan(
    plan: Plan, states: Mapping[str, RunState], speeds: Speeds, jobs: int, console: Console
) -> None:
    """The runs and what they cost, for --dry-run."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_UNLIMITED, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "label", "state"):
        table.add_column(name, no_wrap=name == "run")
    for name in ("steps", "steps/s", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for planned in plan.runs:
        config, state = planned.config, states[planned.name]
        speed = state.speed or speeds.get(_kind(config))
        hours = config.total_steps / (speed or ASSUMED_SPEED) / 3600
        table.add_row(
            planned.name,
            planned.label,
            state.phase.value,
            f"{config.total_steps:,}",
            f"{speed:,.0f}" if speed else f"{ASSUMED_SPEED:,.0f}?",
            f"{hours:,.2f}",
        )
    for item in plan.reevaluations:
        table.add_row(item.group, item.label, f"evaluation of {item.of}", "-", "-", "-")
    console.print(table)
    cost = cost_of(plan, states, speeds)
    guess = "" if cost.measured else f" ('?': assumed, no run of that kind was found in {plan.options.runs})"
    console.print(
        f"{len(plan.runs)} runs in {plan.directory}; left: {cost.steps:,} steps, about "
        f"{cost.seconds / 3600 / jobs:,.2f} hours with {jobs} at a time{guess}, and the final evaluations",
        soft_wrap=True,
    )


@contextmanager
def show(console: Console, speeds: Speeds) -> Iterator[Show]:
    """Within this context, what it gives can be passed to `Runner.run`."""
    if not console.is_terminal:
        yield Lines(console, speeds)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield LiveTable(live, speeds)


def _kind(config: TrainConfig) -> tuple[str, str]:
    return config.policy_name, config.algorithm_name


class Show:
    """Base of both forms."""

    def __init__(self, speeds: Speeds) -> None:
        self.speeds = speeds

    def __call__(self, runner: Runner) -> None:
        """Show how far `runner` is."""
        raise NotImplementedError

    def summary(self, runner: Runner) -> str:
        """Done, running, failed, time left."""
        done = sum(job.state.phase is Phase.FINISHED for job in runner.jobs)
        parts = [f"{done} of {len(runner.jobs)} runs done"]
        failed = sum(job.failure is not None for job in runner.jobs)
        if failed:
            parts.append(f"{failed} failed")
        seconds = 0.0
        for job in runner.jobs:
            if job.failure is None and job.state.phase is not Phase.FINISHED:
                config = job.planned.config
                speed = job.state.speed or self.speeds.get(_kind(config)) or ASSUMED_SPEED
                seconds += max(0, config.total_steps - job.state.reached) / speed
        if seconds:
            parts.append(f"about {duration(seconds / runner.at_once)} of training left")
        return ", ".join(parts)


class LiveTable(Show):
    """A table of all runs that moves."""

    def __init__(self, live: Live, speeds: Speeds) -> None:
        super().__init__(speeds)
        self._live = live

    def __call__(self, runner: Runner) -> None:
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, caption=self.summary(runner), caption_justify="left"
        )
        table.add_column("run", no_wrap=True)
        table.add_column("state")
        table.add_column("steps", justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("steps/s", justify="right", no_wrap=True)
        for job in rows_to_show(runner, self._live.console.height - 6):
            total, at = job.planned.config.total_steps, job.state.reached
            table.add_row(
                job.planned.name,
                state_text(job),
                f"{at:,}",
                f"{min(1.0, at / total):4.0%}",
                f"{job.state.speed:,.0f}" if job.state.speed else "",
            )
        self._live.update(table, refresh=True)


class Lines(Show):
    """A line for everything that happens, and one now and then."""

    def __init__(self, console: Console, speeds: Speeds) -> None:
        super().__init__(speeds)
        self._console = console
        self._states: dict[str, str] = {}
        self._shown = -math.inf

    def __call__(self, runner: Runner) -> None:
        for job in runner.jobs:
            state = str(state_text(job))
            kind = state.split(" at ")[0]
            if self._states.get(job.planned.name, Phase.MISSING.value) != kind:
                self._say(f"{job.planned.name}: {state}")
            self._states[job.planned.name] = kind
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            at = [f"{job.planned.name} at {job.state.reached:,}" for job in runner.running]
            self._say("; ".join([self.summary(runner), *at]))

    def _say(self, line: str) -> None:
        self._console.print(
            f"{time.strftime('%H:%M:%S')}  {line}", markup=False, highlight=False, soft_wrap=True
        )
        self._console.file.flush()


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
