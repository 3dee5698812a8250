from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agents import IMPALA, PPO
from agents.ppo import PPOLearner
from benchmarks.precision_gradient import Settings, agreement, gradients, in_precision, measure
from common.errors import UserError
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

POLICY = PolicyConfig(core_config("feedforward"), ImpalaEncoderConfig(hidden=16, channels=(4,)))


@pytest.fixture
def env() -> Iterator[ProcgenVecEnv]:
    env = ProcgenVecEnv("maze", 4, num_threads=0, seed=0)
    yield env
    env.close()


@pytest.fixture
def agent(env: ProcgenVecEnv) -> PPO:
    return PPO(POLICY, env, seed=0, device="cpu", rollout_steps=16, minibatches=2, epochs=1)


def test_precisions_agree_more_than_minibatches_and_nothing_is_changed(agent: PPO) -> None:
    agent.learn(64)
    learner, policy = agent.learner, agent.policy
    assert isinstance(learner, PPOLearner)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    found = agreement(learner, agent.actors.stores[0].batch, ["maze"] * 4)
    assert found.minibatches < found.least_alike < found.precisions
    assert 0.99 < found.precisions < 1.0
    assert 0.0 < found.divergence < 1e-3
    assert learner.policy is policy
    assert all(value.equal(before[name]) for name, value in policy.state_dict().items())


def test_gradients_are_those_that_training_follows(agent: PPO) -> None:
    agent.learn(64)
    learner = agent.learner
    batch = next(learner.batches(agent.actors.stores[0].batch))
    assert isinstance(learner, PPOLearner)
    found, logits = gradients(learner, batch)
    losses = learner.losses(batch)
    agent.policy.zero_grad()
    losses.total.backward()
    parameters = list(agent.policy.parameters())
    assert len(found) == len(parameters)
    for gradient, parameter in zip(found, parameters, strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected.flatten())
    assert logits.equal(losses.output.logits)


def test_a_twin_has_the_weights_and_the_precision_asked_for(agent: PPO) -> None:
    twin = in_precision(agent.policy, (64, 64, 3), "bfloat16")
    assert twin.config.precision == "bfloat16"
    assert all(value.equal(twin.state_dict()[name]) for name, value in agent.policy.state_dict().items())


def test_a_checkpoint_is_looked_at(agent: PPO, env: ProcgenVecEnv, tmp_path: Path) -> None:
    agent.save(tmp_path / "agent")
    found = measure(Settings(tmp_path / "agent.ckpt", "maze", num_envs=4, rollouts=1))
    assert found.precisions > 0.99
    IMPALA(POLICY, env, seed=0, rollout_steps=5).save(tmp_path / "other")
    with pytest.raises(UserError, match="is of IMPALA: name a checkpoint of PPO"):
        measure(Settings(tmp_path / "other.ckpt", "maze", num_envs=4))
