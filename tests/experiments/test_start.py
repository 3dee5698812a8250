"""A sequence that begins with an agent that plays already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agents import IMPALA, read_checkpoint
from common.errors import UserError
from envs import ProcgenVecEnv
from experiments.launch import train
from experiments.start import begin_with, read_start
from helpers import tiny_run
from records.config import TrainConfig
from records.directory import RunDirectory


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two rollouts of bossfight."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "expert")
    assert train(tiny_run(games=["bossfight"], total_steps=160), run.path) == 0
    return run


def following(start: object, **changes: Any) -> TrainConfig:
    sequence = {
        "steps_per_task": 160,
        "first_stage_steps": 80,
        "boundary_episodes": 1,
        "evaluation_splits": ["train"],
        "start": str(start),
    }
    settings = {"games": ["bossfight", "dodgeball"], "total_steps": 240, "sequence": sequence, **changes}
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


def test_a_sequence_without_a_start_begins_with_fresh_weights() -> None:
    assert read_start(tiny_run()) is None
