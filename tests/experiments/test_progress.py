from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from experiments import progress
from experiments.progress import TrainingProgress, duration


class Run:
    """A run at a speed of our choice, told to a progress callback."""

    def __init__(self, callback: TrainingProgress, monkeypatch: pytest.MonkeyPatch, start: int = 0) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.model: Any = SimpleNamespace(num_timesteps=start, episode_returns={})
        self.callback = callback
        callback.init_callback(self.model)
        callback.on_training_start({}, {})

    def go(self, seconds: float, steps: int, new_rollout: bool = True) -> None:
        self.now += seconds
        self.model.num_timesteps += steps
        if new_rollout:
            self.callback.on_rollout_start()
        assert self.callback.on_step()


def plain_console(screen: io.StringIO) -> Console:
    return Console(file=screen, width=60)


def terminal(screen: io.StringIO, width: int = 120) -> Console:
    return Console(file=screen, force_terminal=True, width=width, color_system=None, legacy_windows=False)


def test_lines_come_every_ten_seconds_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    run = Run(TrainingProgress(10_000, plain_console(screen)), monkeypatch)
    for _ in range(9):
        run.go(1, 100)
    assert screen.getvalue() == ""
    run.model.episode_returns = {"bigfish": 1.25, "maze": 5.0}
    run.go(1, 100)
    assert screen.getvalue() == " 10%  1,000/10,000 steps  100 steps/s  1:30 left  bigfish 1.25  maze 5.00\n"
    run.go(5, 500)
    assert screen.getvalue().count("\n") == 1
    run.callback.on_training_end()
    assert screen.getvalue().splitlines()[1].startswith(" 15%  1,500/10,000 steps  100 steps/s")


def test_the_speed_is_that_of_the_last_minute_and_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(TrainingProgress(10_000_000, plain_console(io.StringIO())), monkeypatch, start=5_000_000)
    assert run.callback.steps_per_second is None
    for _ in range(100):
        run.go(1, 1000)
    assert run.callback.steps_per_second == pytest.approx(1000)
    for _ in range(70):
        run.go(1, 10)
    assert run.callback.steps_per_second == pytest.approx(10)


def test_the_speed_counts_learning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(TrainingProgress(1_000_000, plain_console(io.StringIO())), monkeypatch)
    for _ in range(3):
        run.go(8, 16_000, new_rollout=False)  # acting
        run.go(92, 0)  # learning
        run.go(1, 2_000, new_rollout=False)
        assert run.callback.steps_per_second == pytest.approx(170, rel=0.06)


def test_the_bar_shows_steps_speed_time_and_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    run = Run(TrainingProgress(100_000, terminal(screen)), monkeypatch)
    assert "no episode has ended yet" in screen.getvalue()
    run.model.episode_returns = {"maze": 5.0}
    run.go(10, 50_000)
    shown = screen.getvalue()
    for text in ("50%", "50,000/100,000 steps", "5,000 steps/s", "0:10 left", "maze 5.00"):
        assert text in shown
    run.callback.on_training_end()
    # The cursor is shown again.
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")


def test_the_bar_is_not_redrawn_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    run = Run(TrainingProgress(100_000, terminal(screen)), monkeypatch)
    run.go(1, 1)
    before = len(screen.getvalue())
    run.go(0.01, 1)
    assert len(screen.getvalue()) == before
    run.callback.close()


def test_closing_twice_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(TrainingProgress(100, terminal(io.StringIO())), monkeypatch)
    run.callback.close()
    run.callback.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05"), (90_000, "1 d 1 h"), (86_399, "23:59:59")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
