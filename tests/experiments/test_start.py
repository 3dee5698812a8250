"""Training that begins with an agent that plays already."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import IMPALA, read_checkpoint
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation.trained.export import main as export
from evaluation.trained.history import History, history_of
from experiments.launch import resume, train
from experiments.start import begin_with, read_start, settings_of
from helpers import tiny_run
from records.config import TrainConfig
from records.directory import RunDirectory


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two rollouts of bossfight."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "expert")
    config = tiny_run(games=["bossfight"], total_steps=160, checkpoint_every_steps=80)
    assert train(config, run.path, command=["python", "train.py", "expert"]) == 0
    return run


def following(start: object, **changes: Any) -> TrainConfig:
    sequence = {
        "steps_per_task": 160,
        "first_stage_steps": 80,
        "boundary_episodes": 1,
        "evaluation_splits": ["train"],
    }
    settings = {"games": ["bossfight", "dodgeball"], "total_steps": 240, "sequence": sequence}
    settings = {**settings, "start": str(start), **changes}
    return tiny_run(**settings)


def agent_of(config: TrainConfig) -> IMPALA:
    env = ProcgenVecEnv(config.games[0], 4, num_threads=0)
    env.close()
    return IMPALA(config.policy, env, config.agent, retention=config.retention, seed=1, device="cpu")


def test_the_weights_are_those_of_the_start(expert: RunDirectory, tmp_path: Path) -> None:
    config = following(f"{expert}@160")
    agent = agent_of(config)
    weights = read_start(config)
    assert weights is not None
    begin_with(agent, weights)
    stored = read_checkpoint(expert.checkpoint_at(160))["learner"]["policy"]
    assert all(torch.equal(tensor, stored[name]) for name, tensor in agent.policy.state_dict().items())
    run = RunDirectory(tmp_path / "run")
    assert train(config, run.path) == 0
    # What the run learned in one rollout is near what it began with, and far from fresh weights.
    first, fresh = (
        read_checkpoint(run.checkpoint_at(80))["learner"]["policy"],
        agent_of(config).policy.state_dict(),
    )
    name = "encoder.linear.weight"
    assert (first[name] - stored[name]).norm() < 0.2 * (fresh[name] - stored[name]).norm()


def test_heads_of_tasks_begin_with_that_of_the_first(expert: RunDirectory) -> None:
    config = following(expert, tasks={"id": "told", "heads": "per-task"})
    agent = agent_of(config)
    fresh = agent.policy.actor.weight.detach().clone()
    weights = read_start(config)
    assert weights is not None
    begin_with(agent, weights)
    heads = agent.policy.actor.weight
    assert isinstance(heads, torch.Tensor)
    assert torch.equal(heads[0], weights["actor.weight"])
    assert torch.equal(heads[1], fresh[1])


def test_cores_of_tasks_begin_with_that_of_the_first(expert: RunDirectory) -> None:
    config = following(expert, tasks={"id": "told", "cores": "per-task"})
    agent = agent_of(config)
    fresh = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    weights = read_start(config)
    assert weights is not None
    begin_with(agent, weights)
    for name, tensor in agent.policy.state_dict().items():
        begun = fresh if name.startswith("core.cores.1.") else weights
        assert torch.equal(tensor, begun[name.replace("core.cores.0.", "core.")]), name


def test_another_network_is_refused_before_anything_is_created(expert: RunDirectory, tmp_path: Path) -> None:
    other = following(expert, core={"width": 16, "heads": 2, "feedforward": 8, "layers": 1})
    with pytest.raises(
        UserError, match=r"holds another network, which differs in core\.input_linear\.weight"
    ):
        train(other, tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        train(following(tmp_path / "nothing"), tmp_path / "run")
    deeper = following(expert, core={"width": 8, "heads": 2, "feedforward": 8, "layers": 2})
    with pytest.raises(UserError, match="holds another network"):
        train(deeper, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_without_a_start_weights_are_fresh() -> None:
    assert read_start(tiny_run()) is None


@pytest.fixture(scope="module")
def run(expert: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A rollout that begins where `expert` was after its first, and hardly learns."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "on")
    settings = settings_of(f"{expert}@80")
    config = replace(settings, total_steps=80, agent=replace(settings.agent, learning_rate=1e-12))
    assert train(config, run.path, command=["python", "train.py", "on"]) == 0
    return run


class TestWithoutASequence:
    def test_settings_are_those_of_the_start(self, expert: RunDirectory) -> None:
        assert settings_of(str(expert)) == replace(expert.read_config(), start=str(expert))

    def test_weights_are_those_of_the_start(self, expert: RunDirectory, run: RunDirectory) -> None:
        begun = read_checkpoint(expert.checkpoint_at(80))["learner"]["policy"]
        ended = read_checkpoint(run.checkpoint_at(80))["learner"]["policy"]
        assert all(torch.allclose(begun[name], ended[name], atol=1e-6) for name in begun)
        assert run.read_config().start == f"{expert}@80"

    def test_the_run_goes_on_from_its_own_checkpoints(
        self, run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = RunDirectory(tmp_path / "copy")
        shutil.copytree(run.path, copy.path)
        copy.write_config(replace(run.read_config(), evaluation_episodes=1, evaluation_splits=("train",)))
        assert resume(copy.path, total_steps=160) == 0
        assert history_of(str(copy)).steps == 240
        assert "\n240 steps are" in capsys.readouterr().out

    def test_what_is_exported_counts_all_steps(self, run: RunDirectory, tmp_path: Path) -> None:
        assert export([str(run.path), "--name", "on", "--out", str(tmp_path), "--episodes", "1"]) == 0
        assert read_checkpoint(tmp_path / "on.ckpt")["run"]["num_timesteps"] == 160
        card = json.loads((tmp_path / "on.json").read_text(encoding="utf-8"))
        assert (card["steps"], card["restarts"]) == (160, [80])

    def test_what_made_the_start_is_kept(self, expert: RunDirectory, run: RunDirectory) -> None:
        before, history = history_of(f"{expert}@80"), history_of(str(run))
        assert (before.steps, before.restarts, before.curve["steps"]) == (80, (), (80,))
        assert (history.steps, history.restarts, history.curve["steps"]) == (160, (80,), (80, 160))
        assert history.commands == ("python train.py expert", "python train.py on")
        assert before.hours is not None
        assert history.hours is not None
        assert history.hours >= before.hours
        assert history.curve["bossfight"][:1] == before.curve["bossfight"]

    def test_an_agent_that_says_nothing_of_its_training(self, tmp_path: Path) -> None:
        agent_of(tiny_run()).save(tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=r"does not say what it was trained with: name a preset"):
            settings_of(str(tmp_path / "other.ckpt"))
        assert history_of(str(tmp_path / "other.ckpt")) == History()
