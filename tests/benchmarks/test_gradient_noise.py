from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agents import IMPALA
from benchmarks.gradient_noise import Settings, gradients, measure, noise
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config


@pytest.fixture
def agent() -> Iterator[IMPALA]:
    env = ProcgenVecEnv("starpilot", 4, num_threads=0)
    policy = PolicyConfig(core_config("feedforward"), ImpalaEncoderConfig(hidden=16, channels=(4,)))
    yield IMPALA(policy, env, seed=0, device="cpu", rollout_steps=20, batch_unrolls=4, max_grad_norm=1e9)
    env.close()


def test_noise_finds_the_signal_that_was_put_in() -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.full((100,), 0.3)  # squared norm 9
    samples = [signal + 2.0 * torch.randn(100, generator=generator) for _ in range(400)]  # variance 400
    found = noise(samples)
    assert found["signal_to_noise"] == pytest.approx(9 / 400, rel=0.12)
    assert found["norm"] == pytest.approx(409**0.5, rel=0.02)


def test_the_terms_add_up_to_the_gradient_that_training_follows(
    agent: IMPALA, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.learn(80)
    batch = agent.actors.stores[0].batch.select(torch.arange(4))
    terms = gradients(agent, agent.config, batch, agent.config.trace_lambda)
    monkeypatch.setattr(agent.optimizer, "step", lambda: None)
    agent.learner.learn(batch, 0)
    followed = torch.cat([p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None])
    torch.testing.assert_close(
        terms["policy"] + terms["value"] + terms["entropy"], followed, rtol=1e-4, atol=1e-4
    )
    assert all(vector.norm() > 0 for vector in terms.values())


def test_a_checkpoint_is_measured_by_term_and_lambda(agent: IMPALA, tmp_path: Path) -> None:
    agent.save(tmp_path / "agent")
    found = measure(Settings(tmp_path / "agent", num_envs=4, batch_unrolls=2, rollouts=1))
    assert list(found) == [
        f"{term}, lambda {trace_lambda}"
        for trace_lambda in (1.0, 0.95)
        for term in ("policy", "value", "entropy")
    ]
    assert found["value, lambda 0.95"]["norm"] != found["value, lambda 1.0"]["norm"]
    assert found["entropy, lambda 0.95"] == found["entropy, lambda 1.0"]
