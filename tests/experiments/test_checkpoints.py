from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from agents import Agent
from agents.exchange import Exchange
from agents.retention import Retention
from experiments import checkpoints
from experiments.checkpoints import BestCheckpoint, CheckpointFailure, SaveCheckpoints, prune
from records.directory import RunDirectory, checkpoint_step


class FakeAgent(Agent):
    """Only what `SaveCheckpoints` asks of an agent."""

    checkpoint_step = 0
    training_score: float | None = None

    def __init__(self) -> None:
        self.broken = False
        self.exchange = Exchange()
        self._retention = Retention()

    def _make_optimizer(self) -> Any:
        raise NotImplementedError

    def update(self, batch: Any) -> Any:
        raise NotImplementedError

    def save(self, path: Any, *more: Any) -> None:  # type: ignore[override]
        if self.broken:
            raise OSError(28, "No space left on device")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("whole")


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def begin(agent: FakeAgent, run: RunDirectory, *options: Any, **more: Any) -> SaveCheckpoints:
    saver = SaveCheckpoints(run, *options, **more)
    saver.model = agent
    saver._on_training_start()
    return saver


def walk(saver: SaveCheckpoints, agent: FakeAgent, *steps: int) -> None:
    for step in steps:
        agent.checkpoint_step = step
        saver._on_rollout_start()


def steps_of(run: RunDirectory) -> list[int]:
    return [checkpoint_step(path) for path in run.checkpoint_files()]


def test_one_is_written_each_time_that_so_many_steps_have_passed(agent: FakeAgent, run: RunDirectory) -> None:
    saver = begin(agent, run, 100)
    walk(saver, agent, 0, 40, 80, 120, 160, 199, 240, 280)
    assert steps_of(run) == [120, 240]
    agent.checkpoint_step = 300
    saver._on_training_end()
    assert steps_of(run) == [120, 240, 300]
    assert saver.saved == run.checkpoint_at(300)


def test_one_is_written_after_so_many_minutes(
    agent: FakeAgent, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saver = begin(agent, run, 100, 0.5)
    for step, clock in ((10, 1029.0), (20, 1031.0), (30, 1060.0), (40, 1061.5), (110, 1062.0), (120, 1091.0)):
        now[0] = clock
        walk(saver, agent, step)
    assert steps_of(run) == [20, 40, 110]


@pytest.mark.parametrize("keep", [1, 3, None])
def test_the_newest_are_kept(agent: FakeAgent, run: RunDirectory, keep: int | None) -> None:
    saver = begin(agent, run, 10, None, keep)
    walk(saver, agent, *range(0, 70, 10))
    assert steps_of(run) == [10, 20, 30, 40, 50, 60][-(keep or 6) :]


def test_the_best_is_kept_too_and_named(agent: FakeAgent, run: RunDirectory) -> None:
    saver = begin(agent, run, 10, None, 2)
    for step, score in ((10, None), (20, 0.5), (30, 0.9), (40, 0.7), (50, 0.9), (60, 0.2)):
        agent.training_score = score
        walk(saver, agent, step)
    assert steps_of(run) == [30, 50, 60]
    assert json.loads(run.best_file.read_text()) == {
        "checkpoint": run.checkpoint_at(30).name,
        "normalized_return": 0.9,
    }
    assert (run.checkpoints / "best.ckpt").resolve() == run.checkpoint_at(30).resolve()


def test_a_resumed_run_knows_its_best(agent: FakeAgent, run: RunDirectory) -> None:
    saver = begin(agent, run, 10, None, 1)
    agent.training_score = 0.9
    walk(saver, agent, 10)
    agent.training_score = 0.1
    walk(saver, agent, 20)
    saver = begin(agent, run, 10, None, 1, resumed_from=run.checkpoint_at(20))
    walk(saver, agent, 30, 40)
    assert steps_of(run) == [10, 40]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"checkpoint": "x", "normalized_return": 1}', '{"checkpoint": 5}']
)
def test_a_damaged_record_of_the_best_is_no_obstacle(run: RunDirectory, content: str) -> None:
    run.checkpoints.mkdir(parents=True)
    run.best_file.write_text(content)
    best = BestCheckpoint(run)
    best.load(1000)
    assert best.path is None


def test_a_best_beyond_the_checkpoint_that_is_gone_on_from_does_not_count(
    agent: FakeAgent, run: RunDirectory
) -> None:
    saver = begin(agent, run, 10)
    agent.training_score = 0.9
    walk(saver, agent, 10, 20)
    best = BestCheckpoint(run)
    best.load(10)
    assert best.path == run.checkpoint_at(10)
    best = BestCheckpoint(run)
    best.load(5)
    assert best.path is None


def test_where_writing_fails_training_goes_on_and_it_is_tried_again(
    agent: FakeAgent, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saver = begin(agent, run, 100)
    walk(saver, agent, 100)
    agent.broken = True
    walk(saver, agent, 200, 210, 310)  # one message, not three
    assert len(caplog.records) == 1
    for part in ("of step 200", "No space left on device", "training goes on", str(run.checkpoint_at(100))):
        assert part in caplog.text
    now[0] += checkpoints.RETRY_SECONDS
    walk(saver, agent, 320)
    assert len(caplog.records) == 2
    agent.broken = False
    walk(saver, agent, 330)
    now[0] += checkpoints.RETRY_SECONDS
    walk(saver, agent, 340)
    assert "can be saved again" in caplog.records[-1].message
    assert steps_of(run) == [100, 340]
    walk(saver, agent, 350, 400)
    assert steps_of(run) == [100, 340, 400]


def test_the_end_without_a_checkpoint_is_said(
    agent: FakeAgent, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "END_PAUSE_SECONDS", 0.0)
    saver = begin(agent, run, 100)
    walk(saver, agent, 100)
    agent.broken, agent.checkpoint_step = True, 150
    with pytest.raises(CheckpointFailure, match=r"of step 150 could not be saved \(No space left.*100\.ckpt"):
        saver._on_training_end()
    assert steps_of(run) == [100]


def test_a_file_of_an_earlier_life_is_not_taken_for_a_checkpoint(agent: FakeAgent, run: RunDirectory) -> None:
    run.checkpoints.mkdir(parents=True)
    run.checkpoint_at(100).write_text("half")
    walk(begin(agent, run, 100), agent, 100)
    assert run.checkpoint_at(100).read_text() == "whole"


def test_the_checkpoint_that_is_gone_on_from_is_not_written_again(
    agent: FakeAgent, run: RunDirectory
) -> None:
    run.checkpoints.mkdir(parents=True)
    run.checkpoint_at(100).write_text("read")
    saver = begin(agent, run, 100, resumed_from=run.checkpoint_at(100))
    agent.checkpoint_step = 100
    assert saver.save_last() == run.checkpoint_at(100)
    assert run.checkpoint_at(100).read_text() == "read"


def test_pruning_leaves_other_files_alone(agent: FakeAgent, run: RunDirectory) -> None:
    walk(begin(agent, run, 10), agent, 10, 20)
    (run.checkpoints / "mine.ckpt").touch()
    prune(run, 1, ())
    assert {path.name for path in run.checkpoints.iterdir()} == {"mine.ckpt", run.checkpoint_at(20).name}
