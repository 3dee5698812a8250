"""What a suite shows while it runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments.suites.command_line import cost_of, rows_to_show, show, state_text
from experiments.suites.definition import find, read
from experiments.suites.plan import Options, make_plan
from experiments.suites.runner import Runner
from records.state import Phase, RunState


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Six runs of 300 M steps: one of each kind, and two that wait."""
    plan = make_plan(read(find("paper-ablation")), Options(seeds=(0,), runs=tmp_path))
    made = Runner(plan, jobs=2)
    states = [
        RunState(Phase.FINISHED, 300_000_000, 300_000_000, 1000.0),
        RunState(Phase.UNFINISHED, 100_000_000, 120_000_000, 500.0),
        RunState(Phase.UNFINISHED, 5, 7, None),
        RunState(Phase.MISSING),
        RunState(Phase.MISSING),
        RunState(Phase.MISSING),
    ]
    for job, state in zip(made.jobs, states, strict=True):
        job.state = state
    made.jobs[1].process, made.jobs[1].started_at = object(), 60_000_000  # type: ignore[assignment]
    made.jobs[3].failure = "code 2: error: no disk"
    made.jobs[4].elsewhere = True
    return made


def test_every_state_has_words(runner: Runner) -> None:
    assert [str(state_text(job)) for job in runner.jobs] == [
        "done",
        "running, continued at 60,000,000",
        "unfinished at 5",
        "failed, code 2: error: no disk",
        "running in another process",
        "not started",
    ]
    runner.jobs[1].state = replace(runner.jobs[1].state, saved=300_000_000)
    assert str(state_text(runner.jobs[1])) == "evaluating"


def test_a_terminal_gets_a_table(runner: Runner) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=40, color_system=None)
    with show(console, {("srwm", "impala", "impala"): 1000.0}) as on_change:
        on_change(runner)
    text = screen.getvalue()
    for part in (
        "reset-50-seed0",
        "120,000,000",
        " 40%",
        "running in another process",
        "1 of 6 runs done, 1 failed, about 7 d 7 h of training left",
    ):
        assert part in text, part


def test_a_log_gets_a_line_for_what_happens_only(runner: Runner) -> None:
    screen = io.StringIO()
    with show(Console(file=screen, width=40), {}) as on_change:
        on_change(runner)
        first = len(screen.getvalue().splitlines())
        on_change(runner)
        assert len(screen.getvalue().splitlines()) == first == 6
        runner.jobs[5].state = RunState(Phase.FINISHED)
        on_change(runner)
    assert screen.getvalue().splitlines()[-1].endswith("horizon-50-seed0: done")


def test_a_small_terminal_shows_what_matters(runner: Runner) -> None:
    shown = rows_to_show(runner, 3)
    assert [job.planned.name for job in shown] == ["reset-50-seed0", "reset-never-seed0", "horizon-1-seed0"]
    assert rows_to_show(runner, 100) == runner.jobs


def test_cost_counts_what_is_left(runner: Runner) -> None:
    cost = cost_of(runner.jobs, {("srwm", "impala", "impala"): 1000.0})
    assert cost.steps == 180_000_000 + 299_999_995 + 2 * 300_000_000
    assert cost.seconds == pytest.approx(180_000_000 / 500 + 299_999_995 / 1000 + 600_000)
    assert cost.measured
    assert not cost_of(runner.jobs, {}).measured
    runner.jobs[1].process = None
    assert cost_of(runner.jobs, {}).steps == cost.steps + 20_000_000
