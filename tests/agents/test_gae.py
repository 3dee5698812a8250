"""Generalised advantage estimation against its definition (arXiv 1506.02438, equation 16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.gae import gae

T, B = 6, 3


def random_inputs(seed: int, steps: int = T, slots: int = B, end_probability: float = 0.25) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "rewards": torch.from_numpy(rng.normal(size=(steps, slots))),
        "values": torch.from_numpy(rng.normal(size=(steps, slots))),
        "dones": torch.from_numpy(rng.random((steps, slots)) < end_probability),
        "bootstrap_value": torch.from_numpy(rng.normal(size=slots)),
    }


def n_step_advantage(inputs: dict[str, Any], b: int, t: int, n: int, discount: float) -> float:
    """Rewards of n steps from t and the value behind them, minus V(x_t); an end cuts everything off."""
    steps = len(inputs["rewards"])
    total = -float(inputs["values"][t, b])
    for k in range(n):
        total += discount**k * float(inputs["rewards"][t + k, b])
        if inputs["dones"][t + k, b]:
            return total
    behind = inputs["values"][t + n, b] if t + n < steps else inputs["bootstrap_value"][b]
    return total + discount**n * float(behind)


def by_definition(inputs: dict[str, Any], discount: float, gae_lambda: float) -> np.ndarray:
    """The mean of all n-step advantages, weighted (1 - lambda) lambda^(n - 1).

    The rollout ends after N steps, so the last of them stands for all longer ones: its weight is the rest,
    lambda^(N - 1).
    """
    steps, slots = inputs["rewards"].shape
    result = np.zeros((steps, slots))
    for b in range(slots):
        for t in range(steps):
            longest = steps - t
            for n in range(1, longest + 1):
                weight = gae_lambda ** (n - 1) * (1.0 if n == longest else 1.0 - gae_lambda)
                result[t, b] += weight * n_step_advantage(inputs, b, t, n, discount)
    return result


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 8),
    slots=st.integers(1, 3),
    end_probability=st.sampled_from([0.0, 0.3, 1.0]),
    discount=st.floats(0.0, 1.0),
    gae_lambda=st.floats(0.0, 1.0),
)
def test_it_is_the_weighted_mean_of_n_step_advantages(
    seed: int, steps: int, slots: int, end_probability: float, discount: float, gae_lambda: float
) -> None:
    inputs = random_inputs(seed, steps, slots, end_probability)
    result = gae(**inputs, discount=discount, gae_lambda=gae_lambda)
    np.testing.assert_allclose(
        result.advantages, by_definition(inputs, discount, gae_lambda), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(result.returns, result.advantages + inputs["values"], rtol=1e-12)


def test_one_reward_at_the_end_and_a_constant_value_by_hand() -> None:
    discount, gae_lambda, value = 0.9, 0.8, 2.0
    rewards = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    dones = torch.tensor([[False], [False], [False], [True]])
    result = gae(rewards, torch.full((4, 1), value), dones, torch.tensor([50.0]), discount, gae_lambda)
    # The last error is 1 - 2 = -1, each earlier one 0.9 * 2 - 2 = -0.2; a step back weighs 0.9 * 0.8 = 0.72.
    expected = torch.tensor([[-0.820928], [-0.8624], [-0.92], [-1.0]])
    torch.testing.assert_close(result.advantages, expected)
    torch.testing.assert_close(result.returns, expected + value)


def test_lambda_0_is_the_one_step_error() -> None:
    inputs = random_inputs(1)
    after = torch.cat([inputs["values"][1:], inputs["bootstrap_value"][None]])
    expected = inputs["rewards"] + 0.9 * after.masked_fill(inputs["dones"], 0.0) - inputs["values"]
    torch.testing.assert_close(gae(**inputs, discount=0.9, gae_lambda=0.0).advantages, expected)


def test_lambda_1_is_the_discounted_return_minus_the_value() -> None:
    inputs = random_inputs(2)
    following = inputs["bootstrap_value"]
    for t in reversed(range(T)):
        following = inputs["rewards"][t] + 0.9 * following.masked_fill(inputs["dones"][t], 0.0)
        result = gae(**inputs, discount=0.9, gae_lambda=1.0)
        torch.testing.assert_close(result.returns[t], following)
        torch.testing.assert_close(result.advantages[t], following - inputs["values"][t])


def test_neither_estimate_carries_gradient() -> None:
    inputs = random_inputs(3)
    for name in ("rewards", "values", "bootstrap_value"):
        inputs[name].requires_grad_()
    result = gae(**inputs, discount=0.9, gae_lambda=0.9)
    assert not result.advantages.requires_grad
    assert not result.returns.requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_dones_that_are_not_bool_raise(dtype: torch.dtype) -> None:
    inputs = random_inputs(0)
    inputs["dones"] = inputs["dones"].to(dtype)
    with pytest.raises(TypeError, match="dones must be bool"):
        gae(**inputs, discount=0.9, gae_lambda=0.9)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("rewards", (T,)),
        ("values", (T + 1, B)),
        ("values", (T, 1)),
        ("dones", (T, B, 1)),
        ("dones", (T - 1, B)),
        ("bootstrap_value", (1, B)),
        ("bootstrap_value", ()),
    ],
)
def test_wrong_shapes_raise_instead_of_broadcasting(name: str, shape: tuple[int, ...]) -> None:
    inputs = random_inputs(0)
    inputs[name] = torch.zeros(shape, dtype=inputs[name].dtype)
    with pytest.raises(ValueError, match=r"takes \(T, B\) tensors"):
        gae(**inputs, discount=0.9, gae_lambda=0.9)
