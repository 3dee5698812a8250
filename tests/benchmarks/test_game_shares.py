from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import IMPALA, PPO
from agents.ppo import PPOLearner
from agents.rollout import Batch
from benchmarks.game_shares import Part, Settings, measure, shares
from common.errors import UserError
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

GAMES = ("bigfish", "maze")
SIZES = {"srwm": {"width": 8, "heads": 2, "feedforward": 16}, "feedforward": {}}


def policy(core: str) -> PolicyConfig:
    return PolicyConfig(core_config(core, **SIZES[core]), ImpalaEncoderConfig(hidden=16, channels=(4,)))


@pytest.fixture
def env() -> Iterator[ProcgenVecEnv]:
    env = ProcgenVecEnv(GAMES, 4, num_threads=0)
    yield env
    env.close()


def ppo(core: str, env: ProcgenVecEnv, **settings: Any) -> PPO:
    one_batch = {"rollout_steps": 16, "minibatches": 1, "epochs": 1}
    return PPO(policy(core), env, seed=0, device="cpu", **{**one_batch, **settings})


def parts(agent: PPO, rewards: torch.Tensor) -> dict[str, Part]:
    learner = agent.learner
    assert isinstance(learner, PPOLearner)
    batch = replace(agent.actors.stores[0].batch, rewards=rewards)
    return shares(learner, batch, agent.actors.collector.games)


@pytest.mark.parametrize("core", list(SIZES))
def test_a_game_whose_rewards_are_larger_has_the_larger_part(core: str, env: ProcgenVecEnv) -> None:
    agent = ppo(core, env, unroll_steps=8)
    agent.learn(64)
    rewards = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([10.0 if game == "maze" else 1.0 for game in agent.actors.collector.games])
    even, uneven = parts(agent, rewards), parts(agent, rewards * scale)
    for found in (even, uneven):
        assert list(found) == list(GAMES)
        assert sum(part.share for part in found.values()) == pytest.approx(1.0)
    assert uneven["maze"].share > 0.8 > 0.7 > even["maze"].share
    assert uneven["maze"].advantage_deviation == pytest.approx(10 * even["maze"].advantage_deviation, rel=0.2)
    assert uneven["bigfish"].advantage_deviation == even["bigfish"].advantage_deviation
    assert uneven["maze"].value_gradient > 5 * even["maze"].value_gradient
    assert uneven["bigfish"].policy_gradient < 0.7 * even["bigfish"].policy_gradient


@pytest.mark.parametrize("core", list(SIZES))
def test_the_part_of_a_game_alone_is_the_gradient_that_training_follows(
    core: str, env: ProcgenVecEnv
) -> None:
    env.close()
    alone = ProcgenVecEnv("maze", 4, num_threads=0)
    agent = ppo(core, alone, unroll_steps=8, entropy_cost=0.0, value_cost=0.0)
    agent.learn(64)
    rewards = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    (part,) = parts(agent, rewards).values()
    batch: Batch = replace(agent.actors.stores[0].batch, rewards=rewards)
    (sequences,) = agent.learner.batches(batch)
    agent.policy.zero_grad()
    agent.learner.losses(sequences).total.backward()
    gradients = [p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None]
    assert part.policy_gradient == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-3)
    assert part.value_gradient == 0.0
    alone.close()


def test_a_checkpoint_is_looked_at_and_left_as_it_is(env: ProcgenVecEnv, tmp_path: Path) -> None:
    agent = ppo("srwm", env)
    agent.save(tmp_path / "agent")
    before = (tmp_path / "agent.ckpt").read_bytes()
    found = measure(Settings(tmp_path / "agent.ckpt", GAMES, num_envs=4, rollouts=2))
    assert list(found) == list(GAMES)
    assert sum(part.share for part in found.values()) == pytest.approx(1.0)
    assert all(part.advantage_deviation > 0 for part in found.values())
    assert (tmp_path / "agent.ckpt").read_bytes() == before


def test_only_ppo_has_such_parts(env: ProcgenVecEnv, tmp_path: Path) -> None:
    IMPALA(policy("srwm"), env, seed=0, rollout_steps=5).save(tmp_path / "agent")
    with pytest.raises(UserError, match="is of IMPALA: name a checkpoint of PPO"):
        measure(Settings(tmp_path / "agent.ckpt", GAMES, num_envs=4))
