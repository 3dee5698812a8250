"""How far a run is, from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from records.config import TrainConfig, from_json
from records.directory import RunDirectory
from records.state import Phase, RunState, measured_speeds, run_directories, state_of
from records.writers import CsvWriter

CONFIG = {"games": ["maze", "heist"], "num_envs": 4, "total_steps": 400, "evaluation_episodes": 5}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has made its 400 steps, its scores and its videos."""
    made = RunDirectory(tmp_path / "suite" / "run")
    made.create(from_json(CONFIG), [])
    for step in (200, 400):
        made.checkpoint_at(step).touch()
    made.evaluation_file.write_text(f'{{"checkpoint": "{made.checkpoint_at(400)}"}}')
    made.videos.mkdir()
    for game in ("maze", "heist"):
        (made.videos / f"{game}.mp4").touch()
    return made


def phase(run: RunDirectory, **changes: object) -> Phase:
    return state_of(run, from_json({**CONFIG, **changes})).phase


def test_a_run_that_has_everything_is_finished(run: RunDirectory) -> None:
    assert state_of(run, from_json(CONFIG)) == RunState(Phase.FINISHED, saved=400)
    assert phase(run, total_steps=401) is Phase.UNFINISHED
    assert state_of(RunDirectory(run.path / "nowhere"), from_json(CONFIG)) == RunState(Phase.MISSING)


@pytest.mark.parametrize("scores", [None, "{", "[]", "{}", '{"checkpoint": null}', '{"checkpoint": "x"}'])
def test_scores_that_cannot_be_read_are_missing(run: RunDirectory, scores: str | None) -> None:
    run.evaluation_file.unlink()
    if scores is not None:
        run.evaluation_file.write_text(scores)
    assert phase(run) is Phase.UNFINISHED
    assert phase(run, evaluation_episodes=None) is Phase.FINISHED


def test_scores_of_an_earlier_checkpoint_do_not_count(run: RunDirectory) -> None:
    """A suite would otherwise call a run done that --resume still evaluates."""
    run.checkpoint_at(600).touch()
    assert phase(run, total_steps=600) is Phase.UNFINISHED


def test_each_game_must_have_its_video(run: RunDirectory) -> None:
    (run.videos / "heist.mp4").unlink()
    assert phase(run) is Phase.UNFINISHED
    assert phase(run, videos=False) is Phase.FINISHED


def test_steps_and_speed_come_from_the_log(run: RunDirectory, tmp_path: Path) -> None:
    writer = CsvWriter(run.progress_file)
    for step, speed in ((100, 50.0), (450, 200.0)):
        writer.write({"time/sps": speed}, {}, step)
    state = state_of(run, TrainConfig())
    assert (state.saved, state.logged, state.reached) == (400, 450, 450)
    assert state.speed == pytest.approx(80.0)  # two equal parts, at 50 and at 200
    assert run_directories(tmp_path) == [run.path]
    assert measured_speeds([run.path, tmp_path]) == {("srwm", "impala", "impala"): state.speed}
