"""How far an evaluation is, as it is shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evaluation import Progress, show_progress


def test_a_terminal_shows_what_is_known_about_the_time_left() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, no_color=True)
    with show_progress(console, "evaluating", "episodes") as report:
        report(Progress(195, 200, "test1, waiting for 5 episodes of plunder", 96.4))
    shown = screen.getvalue()
    assert "195/200" in shown
    assert "0:01:36 test1, waiting for 5 episodes of plunder" in shown


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("evaluation.progress.time.monotonic", lambda: now[0])
    screen = io.StringIO()
    with show_progress(Console(file=screen, width=120), "recording", "frames") as report:
        for frame in range(1, 31):
            now[0] += 1
            report(Progress(frame, 30, "maze"))
    assert screen.getvalue().splitlines() == [f"recording: {done}/30 frames  maze" for done in (10, 20, 30)]
