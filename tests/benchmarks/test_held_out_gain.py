from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents import PPO
from agents.ppo import PPOLearner
from agents.rollout import Batch
from benchmarks.held_out_gain import Gain, Settings, estimated, gain, measure, outcome, varied
from common.errors import UserError
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

SIZES = {"srwm": {"width": 8, "heads": 2, "feedforward": 16}, "feedforward": {}}


@pytest.fixture
def env() -> Iterator[ProcgenVecEnv]:
    env = ProcgenVecEnv("bigfish", 4, num_threads=0, seed=0)
    yield env
    env.close()


def ppo(env: ProcgenVecEnv, core: str = "feedforward") -> PPO:
    policy = PolicyConfig(core_config(core, **SIZES[core]), ImpalaEncoderConfig(hidden=16, channels=(4,)))
    settings = {"rollout_steps": 32, "unroll_steps": 16, "minibatches": 2, "epochs": 1}
    return PPO(policy, env, seed=0, device="cpu", **settings)


def played(agent: PPO, rollouts: int) -> tuple[PPOLearner, list[Batch]]:
    """Rollouts of the same weights, with rewards that are drawn, so that there is nothing to be learned from them."""
    learner, found = agent.learner, []
    assert isinstance(learner, PPOLearner)
    generator = torch.Generator().manual_seed(0)

    def keep(rollout: Batch, step: int) -> dict[str, float]:
        rewards = torch.randn(rollout.rewards.shape, generator=generator)
        found.append(replace(deepcopy(rollout), rewards=rewards))
        return {}

    learner.learn = keep  # type: ignore[method-assign]
    agent.learn(rollouts * 4 * 32)
    del learner.learn
    return learner, found


@pytest.mark.parametrize("core", list(SIZES))
def test_noise_is_learned_and_does_not_hold_elsewhere(core: str, env: ProcgenVecEnv) -> None:
    learner, rollouts = played(ppo(env, core), 6)
    before = deepcopy(learner.state())
    eager = replace(learner.config, epochs=12, learning_rate=3e-3)
    found = gain(learner, eager, rollouts)
    assert found.learned > 0.05
    assert abs(found.held_out) < 0.3 * found.learned
    assert found.divergence > 1e-3
    assert learner.config == ppo(env, core).config
    after = learner.state()
    assert all(value.equal(before["policy"][name]) for name, value in after["policy"].items())
    assert after["updates"] == before["updates"]
    again = gain(learner, eager, rollouts)
    assert again == found


def test_what_hardly_learns_gains_nothing(env: ProcgenVecEnv) -> None:
    learner, rollouts = played(ppo(env), 3)
    found = gain(learner, replace(learner.config, learning_rate=1e-9), rollouts)
    assert found.learned == pytest.approx(0.0, abs=1e-4)
    assert found.divergence == pytest.approx(0.0, abs=1e-6)
    assert found.value_error == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("batch_steps", [1, 48, 2048])
@pytest.mark.parametrize("core", list(SIZES))
def test_an_outcome_against_a_loop(core: str, batch_steps: int, env: ProcgenVecEnv) -> None:
    learner, (rollout,) = played(ppo(env, core), 1)
    own = estimated(learner, rollout)
    gaes = learner.estimate(rollout).advantages.double()
    scaled = (gaes - gaes.mean()) / gaes.std()
    learner.learn(rollout, 0)
    output = learner.policy(
        rollout.rgb[:-1], rollout.reward_input[:-1], rollout.initial_state, rollout.episode_start[:-1]
    )
    log_probs = output.logits.double().log_softmax(-1)
    total = divergence = 0.0
    for t in range(32):
        for env_number in range(4):
            log_prob = log_probs[t, env_number, rollout.actions[t, env_number]].item()
            log_ratio = log_prob - rollout.log_probs[t, env_number].item()
            total += (math.exp(log_ratio) - 1.0) * scaled[t, env_number].item()
            divergence += math.exp(log_ratio) - 1.0 - log_ratio
    found = outcome(learner, own, batch_steps)
    if core == "feedforward":
        assert found.gain == pytest.approx(total / 128, rel=1e-3, abs=1e-6)
        assert found.divergence == pytest.approx(divergence / 128, rel=1e-3, abs=1e-6)
    else:  # an unroll begins with the state that acted there, which old weights have written
        assert found.gain == pytest.approx(total / 128, rel=0.2, abs=1e-4)


def test_variations_are_read_as_settings_are(env: ProcgenVecEnv) -> None:
    config = ppo(env).config
    assert varied(config, "epochs=2,learning_rate=1e-4") == replace(config, epochs=2, learning_rate=1e-4)
    for text, message in (
        ("epoch=2", "unknown setting 'epoch': did you mean epochs"),
        ("epochs", "'epochs' is no setting: write name=value"),
        ("learning_rate=-1", "learning_rate"),
    ):
        with pytest.raises(UserError, match=message):
            varied(config, text)


def test_a_checkpoint_is_measured(env: ProcgenVecEnv, tmp_path: Path) -> None:
    ppo(env).save(tmp_path / "agent")
    settings = Settings(
        tmp_path / "agent.ckpt", "bigfish", vary=("learning_rate=1e-9",), num_envs=4, held_out=2
    )
    found = measure(settings)
    assert list(found) == ["as trained", "learning_rate=1e-9"]
    assert all(isinstance(one, Gain) for one in found.values())
    assert found["as trained"].divergence > 100 * found["learning_rate=1e-9"].divergence
    with pytest.raises(UserError, match="minibatches must divide"):
        measure(replace(settings, vary=("minibatches=3",)))
    with pytest.raises(UserError, match="held_out is 1: give 2 or more"):
        measure(replace(settings, held_out=1))
