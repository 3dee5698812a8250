"""Tiny sequences on the real games: where stages end, what is measured there, and exact continuation from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import read_checkpoint
from agents.retention import RETENTIONS, Retention, Rollouts
from common.errors import UserError
from envs import IMAGE_SHAPE, NUM_ACTIONS, GroupedVecEnv, parse_task, tasks_at_once
from evaluation.plasticity import NUMBERS
from experiments import continual_evaluation
from experiments.curriculum import current_stage, stage_seed
from experiments.launch import resume, train
from experiments.stopping import Heartbeat, StopOnRequest
from helpers import assert_same, tiny_run
from policies import Policy
from records.config import TrainConfig
from records.continual import BETWEEN, BOUNDARY, FILE, ContinualLog, Measurement
from records.directory import RunDirectory, checkpoint_step
from records.state import Phase, state_of

SEQUENCE: dict[str, Any] = {
    "steps_per_task": 200,
    "evaluate_every_steps": 100,
    "evaluation_episodes": 1,
    "boundary_episodes": 2,
    "evaluation_splits": ["train"],
}


class Consolidating(Retention):
    """Plays at each boundary, and keeps a number that follows from what it saw."""

    name = "consolidating"
    needs_boundaries = True

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.seen = 0.0

    def end_task(self, task: int, rollouts: Rollouts) -> None:
        for batch in rollouts(2):
            self.seen += float(batch.rgb.double().mean())

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    RETENTIONS["consolidating"] = Consolidating
    yield
    del RETENTIONS["consolidating"]


def tiny_sequence(**changes: Any) -> TrainConfig:
    """Rollouts of 80 steps on bossfight and then on dodgeball; 200 steps each, which are three rollouts and two."""
    sequence = {**SEQUENCE, **changes.pop("sequence", {})}
    return tiny_run(
        **{
            "games": ["bossfight", "dodgeball"],
            "total_steps": 400 * sequence.get("cycles", 1),
            "keep_checkpoints": None,
            "checkpoint_every_steps": 80,
            "retention": "consolidating",
            "sequence": sequence,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registered: Any) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "whole")
    assert train(tiny_sequence(), run.path) == 0
    return run


def steps_of(run: RunDirectory) -> list[int]:
    return [checkpoint_step(path) for path in run.checkpoint_files()]


def scores_of(run: RunDirectory) -> list[Measurement]:
    return [one for one in ContinualLog(run.path / FILE).read() if one.kind in (BOUNDARY, BETWEEN)]


def assert_same_runs(one: RunDirectory, other: RunDirectory) -> None:
    assert steps_of(one) == steps_of(other)
    for path in one.checkpoint_files():
        assert_same(read_checkpoint(path), read_checkpoint(other.checkpoints / path.name))
    assert (one.path / FILE).read_bytes() == (other.path / FILE).read_bytes()


def test_stages_end_at_rollouts_and_do_not_drift(finished: RunDirectory) -> None:
    assert steps_of(finished) == [80, 160, 240, 320, 400]
    games = [read_checkpoint(path)["run"]["collector"]["games"][0] for path in finished.checkpoint_files()]
    assert games == ["bossfight", "bossfight", "bossfight", "dodgeball", "dodgeball"]
    tasks = [read_checkpoint(path)["run"]["task"] for path in finished.checkpoint_files()]
    assert tasks == [0, 0, 0, 1, 1]


def test_every_task_is_scored_at_boundaries_and_in_between(finished: RunDirectory) -> None:
    measured = scores_of(finished)
    places = [(one.step, one.stage, one.kind, one.task, len(one.returns)) for one in measured]
    expected = []
    for step, stage, kind, episodes in [
        (0, 0, BOUNDARY, 2),
        (80, 1, BETWEEN, 1),  # soon after the beginning
        (160, 1, BETWEEN, 1),  # the first rollout beyond 100 steps
        (240, 1, BOUNDARY, 2),
        (320, 2, BETWEEN, 1),
        (400, 2, BOUNDARY, 2),
    ]:
        expected += [(step, stage, kind, task, episodes) for task in ("bossfight", "dodgeball")]
    assert places == expected
    assert all(one.steps > 0 for one in measured)
    others = [one for one in ContinualLog(finished.path / FILE).read() if one not in measured]
    assert [(one.step, one.task) for one in others[:: len(NUMBERS)]] == [
        (240, "bossfight"),
        (400, "dodgeball"),
    ]
    assert {one.condition for one in others} == set(NUMBERS)


@pytest.mark.parametrize("step", [160, 240, 320])
def test_a_run_killed_at_any_time_becomes_the_one_that_was_not(
    step: int, finished: RunDirectory, tmp_path: Path
) -> None:
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    for path in copy.checkpoint_files():
        if checkpoint_step(path) > step:
            path.unlink()
    log = copy.path / FILE
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if json.loads(line)["step"] <= step)
    # The last line was being written: what was played with it is gone, too.
    log.write_bytes(b"".join(lines[:last]) + lines[last][:20])
    assert resume(copy.path) == 0
    assert_same_runs(copy, finished)


@pytest.mark.parametrize("phase", ["first evaluation", "rollout", "evaluation", "boundary", "consolidation"])
def test_a_signal_in_any_phase(
    phase: str, finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = False

    def send_once(when: bool) -> None:
        nonlocal sent
        if when and not sent:
            sent = True
            os.kill(os.getpid(), signal.SIGTERM)

    on_step, beat, measure = StopOnRequest._on_step, Heartbeat.__call__, Consolidating.end_task
    at: list[tuple[int, str]] = []
    original = continual_evaluation.ContinualEvaluation._measure

    def noting(self: Any, agent: Any, number: int, kind: str, episodes: int) -> None:
        at.append((agent.num_timesteps, kind))
        original(self, agent, number, kind, episodes)

    def stepping(self: Any) -> bool:
        send_once(phase == "rollout" and self.model.num_timesteps == 280)
        return on_step(self)

    def beating(self: Any) -> None:
        wanted = {
            "first evaluation": (0, BOUNDARY),
            "evaluation": (320, BETWEEN),
            "boundary": (240, BOUNDARY),
        }
        send_once(bool(at) and at[-1] == wanted.get(phase))
        beat(self)

    def ending(self: Any, task: int, rollouts: Rollouts) -> None:
        def stopped(count: int) -> Any:
            for number, batch in enumerate(rollouts(count)):
                send_once(phase == "consolidation" and number == 0)
                yield batch

        measure(self, task, stopped)

    monkeypatch.setattr(continual_evaluation.ContinualEvaluation, "_measure", noting)
    monkeypatch.setattr(StopOnRequest, "_on_step", stepping)
    monkeypatch.setattr(Heartbeat, "__call__", beating)
    monkeypatch.setattr(Consolidating, "end_task", ending)
    run = RunDirectory(tmp_path / "run")
    assert train(tiny_sequence(), run.path) == 143
    assert sent
    reached = {
        "first evaluation": 0,
        "rollout": 240,
        "evaluation": 320,
        "boundary": 240,
        "consolidation": 240,
    }
    assert steps_of(run)[-1] == reached[phase]
    assert resume(run.path) == 0
    if phase == "first evaluation":
        run.checkpoint_at(0).unlink()
    assert_same_runs(run, finished)


def test_a_run_that_lacks_its_last_scores_is_not_finished(finished: RunDirectory, tmp_path: Path) -> None:
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    config = copy.read_config()
    assert state_of(copy, config).phase is Phase.FINISHED
    with pytest.raises(UserError, match="has ended"):
        resume(copy.path)
    log = copy.path / FILE
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2]))
    assert state_of(copy, config).phase is Phase.UNFINISHED
    assert resume(copy.path) == 0
    assert_same_runs(copy, finished)


def test_evaluations_change_nothing_that_is_learned(finished: RunDirectory, tmp_path: Path) -> None:
    quiet = RunDirectory(tmp_path / "quiet")
    changes = {"evaluate_every_steps": None, "boundary_episodes": 1}
    assert train(tiny_sequence(sequence=changes), quiet.path) == 0
    for path in quiet.checkpoint_files():
        one, other = read_checkpoint(path), read_checkpoint(finished.checkpoints / path.name)
        assert_same({**one, "experiment": None}, {**other, "experiment": None})


def test_the_ends_of_stages_are_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    changes = {"cycles": 2, "evaluate_every_steps": None, "boundary_episodes": 1}
    assert train(tiny_sequence(keep_checkpoints=1, sequence=changes), run.path) == 0
    assert steps_of(run) == [240, 400, 640, 800]
    assert not run.best_file.exists()
    assert [one.stage for one in scores_of(run)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_joint_training_plays_all_games_and_is_scored_at_the_same_times(
    finished: RunDirectory, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "joint")
    assert train(tiny_sequence(sequence={"joint": True}, retention="none"), run.path) == 0
    for path in run.checkpoint_files():
        assert read_checkpoint(path)["run"]["collector"]["games"] == 2 * ["bossfight", "dodgeball"]
    ours, theirs = (scores_of(one) for one in (run, finished))
    assert [(one.step, one.task) for one in ours] == [(one.step, one.task) for one in theirs]


def test_joint_training_plays_each_task_on_its_own_levels(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "joint")
    tasks = ["bossfight/easy/3:4", "bossfight/hard/5:6"]
    changes = {"joint": True, "tasks": tasks, "evaluate_every_steps": None, "boundary_episodes": 1}
    assert train(tiny_sequence(games=["bossfight"], sequence=changes, retention="none"), run.path) == 0
    state = read_checkpoint(run.newest_checkpoint())["run"]["env"]
    env = tasks_at_once([parse_task(task) for task in tasks], 4, num_threads=0)
    assert isinstance(env, GroupedVecEnv)
    env.set_state(state)
    assert env.get_attr("mode") == ["easy", "easy", "hard", "hard"]
    assert env.get_attr("current_levels", [0, 2]) == [[3, 3], [5, 5]]
    env.close()


def test_joint_training_is_training_on_all_games(tmp_path: Path) -> None:
    """Being cut into stages changes nothing: it is the run that knows of no sequence."""
    joint, plain = RunDirectory(tmp_path / "joint"), RunDirectory(tmp_path / "plain")
    changes = {"joint": True, "evaluate_every_steps": None, "boundary_episodes": 1}
    assert train(tiny_sequence(sequence=changes, retention="none"), joint.path) == 0
    assert train(tiny_run(games=["bossfight", "dodgeball"], total_steps=400), plain.path) == 0
    one, other = (read_checkpoint(run.newest_checkpoint())["learner"] for run in (joint, plain))
    assert_same(one, other)


@pytest.mark.parametrize(
    ("restart", "expected"), [(True, [1.0, 0.6, 0.2, 0.8, 0.4]), (False, [1, 0.8, 0.6, 0.4, 0.2])]
)
def test_a_learning_rate_falls_within_each_stage_or_over_the_run(
    restart: bool, expected: list[float], tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    changes = {"restart_learning_rate": restart, "evaluate_every_steps": None, "boundary_episodes": 1}
    agent = {"rollout_steps": 20, "learning_rate": 1e-3, "learning_rate_decay": True}
    assert train(tiny_sequence(sequence=changes, agent=agent), run.path) == 0
    rates = [
        read_checkpoint(path)["learner"]["optimizer"]["param_groups"][0]["lr"]
        for path in run.checkpoint_files()
    ]
    assert rates == pytest.approx([1e-3 * share for share in expected])


def test_an_optimizer_that_forgets(tmp_path: Path) -> None:
    changes = {"evaluate_every_steps": None, "boundary_episodes": 1}
    states = []
    for forgets in (False, True):
        run = RunDirectory(tmp_path / str(forgets))
        config = tiny_sequence(sequence={**changes, "reset_optimizer": forgets})
        assert train(config, run.path) == 0
        states.append([read_checkpoint(run.checkpoint_at(step))["learner"] for step in (240, 320)])
    assert_same(states[0][0], states[1][0])
    first, second = (state[1]["optimizer"]["state"]["0"] for state in states)
    assert float(first["square_avg"].sum()) > float(second["square_avg"].sum())


def test_a_core_that_begins_anew(tmp_path: Path) -> None:
    """With a rate that moves nothing, the second stage has the weights that it began with."""
    changes = {"evaluate_every_steps": None, "boundary_episodes": 1, "fresh_core": True}
    config = tiny_sequence(sequence=changes, agent={"rollout_steps": 20, "learning_rate": 1e-30})
    run = RunDirectory(tmp_path / "run")
    assert train(config, run.path) == 0
    first, second = (read_checkpoint(run.checkpoint_at(step))["learner"]["policy"] for step in (240, 320))
    policy = Policy(config.policy, IMAGE_SHAPE, NUM_ACTIONS)
    policy.load_state_dict(first)
    policy.renew(stage_seed(config.seed, 2))
    torch.testing.assert_close(dict(policy.state_dict()), second)
    assert not torch.equal(first["actor.weight"], second["actor.weight"])


def test_seeds_of_stages_are_their_own() -> None:
    assert stage_seed(5, 1) == 5
    seeds = {stage_seed(seed, number) for seed in range(3) for number in range(2, 5)}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_where_a_checkpoint_stands() -> None:
    config = tiny_sequence()
    found = [
        current_stage(config, state).number
        for state in (
            None,
            {"num_timesteps": 0, "task": 0},
            {"num_timesteps": 240, "task": 0},
            {"num_timesteps": 240, "task": 1},  # of after the switch
            {"num_timesteps": 320, "task": 1},
            {"num_timesteps": 400, "task": 1},
        )
    ]
    assert found == [1, 1, 1, 2, 2, 2]
