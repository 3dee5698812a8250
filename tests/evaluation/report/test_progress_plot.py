"""The picture that a run leaves of how it learned."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from evaluation.report import progress
from evaluation.report.progress import progress_plot
from experiments.launch import train
from helpers import tiny_run
from records.directory import RunDirectory


def test_a_run_ends_with_a_picture_of_its_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, dict[str, object]] = {}

    def draw_panels(panels: list, *labels: str, shared: bool) -> str:  # type: ignore[type-arg]
        for title, draw in panels:
            axes = Figure().subplots()
            draw(axes)
            drawn[title] = {line.get_label(): line.get_ydata() for line in axes.lines}
            drawn[title]["published"] = [kept.get_label() for kept in axes.containers]
        return real(panels, *labels, shared=shared)

    real = progress.draw_panels
    monkeypatch.setattr(progress, "draw_panels", draw_panels)
    run = RunDirectory(tmp_path / "run")
    assert train(tiny_run(videos=False, evaluation_episodes=None), run.path) == 0
    assert run.progress_plot.read_text().startswith("<?xml")
    assert set(drawn) == {"bigfish", "maze"}
    for curves in drawn.values():
        assert len(curves["this run"]) == 6  # type: ignore[arg-type]
        assert curves["published"] == ["published PPO"]
        assert "random player" in curves
    assert progress_plot(run) == run.progress_plot.read_text()
