from __future__ import annotations

import pytest
import torch

from agents import IMPALA
from envs import ProcgenVecEnv, Task
from evaluation.plasticity import STEPS, STREAMS, dormant_share, effective_rank, measure, weight_norm
from helpers import assert_same


def test_dormant_units_are_counted_by_their_share_of_the_mean() -> None:
    activations = torch.tensor([[1.0, 0.0, 0.02, -3.0], [-1.0, 0.0, 0.03, 1.0]])
    # Means 1, 0, 0.025 and 2: that of all is 0.756, of which 0.025 are 0.019 and 0.05 are 0.038.
    assert dormant_share(activations) == 0.25
    assert dormant_share(activations, 0.05) == 0.5


def test_the_effective_rank_counts_directions() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5.0)
    assert effective_rank(torch.ones(7, 5)) == pytest.approx(1.0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(50, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    assert 1.0 < effective_rank(thin) <= 3.0 + 1e-6
    assert effective_rank(2.5 * thin) == pytest.approx(effective_rank(thin))


def test_measuring_changes_nothing_and_repeats() -> None:
    env = ProcgenVecEnv("maze", 2, num_threads=0)
    agent = IMPALA("lstm", env, seed=0, rollout_steps=2, device="cpu")
    env.close()
    before, drawn = {name: w.clone() for name, w in agent.policy.state_dict().items()}, torch.get_rng_state()
    first = measure(agent, Task("maze"), num_threads=0)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert measure(agent, Task("maze"), num_threads=0) == first
    assert_same(dict(agent.policy.state_dict()), before)
    norm = sum(float(w.detach().double().square().sum()) for w in agent.policy.parameters()) ** 0.5
    assert first["weight norm"] == pytest.approx(norm) == pytest.approx(weight_norm(agent.policy))
    assert 0 <= first["dormant encoder units"] < 1
    assert 1 <= first["effective rank of the core"] <= min(agent.policy.core.output_size, STREAMS * STEPS)
