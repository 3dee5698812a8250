"""V-trace against a double loop written like equation 1 of the paper (arXiv 1802.01561), in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.vtrace import vtrace

T, B = 7, 4


def random_inputs(seed: int, steps: int = T, slots: int = B, end_probability: float = 0.2) -> dict[str, Any]:
    """Weights from about 0.1 to 10 around any threshold, and another history in each column."""
    rng = np.random.default_rng(seed)
    return {
        "behaviour_log_probs": rng.normal(-1.5, 1.0, (steps, slots)),
        "target_log_probs": rng.normal(-1.5, 1.0, (steps, slots)),
        "rewards": rng.normal(0.0, 2.0, (steps, slots)),
        "discounts": 0.9 * (rng.random((steps, slots)) >= end_probability),
        "values": rng.normal(0.0, 3.0, (steps, slots)),
        "bootstrap_value": rng.normal(0.0, 3.0, slots),
    }


def tensors(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


def by_definition(
    inputs: dict[str, Any], rho_clip: float, c_clip: float, trace_lambda: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """v_s = V(x_s) + sum over t from s of (product over i from s to t - 1 of gamma_i c_i) delta_t."""
    rewards, discounts = inputs["rewards"], inputs["discounts"]
    steps, slots = rewards.shape
    values = np.concatenate([inputs["values"], inputs["bootstrap_value"][None]])
    ratios = np.exp(inputs["target_log_probs"]) / np.exp(inputs["behaviour_log_probs"])
    targets = np.zeros((steps + 1, slots))
    advantages = np.zeros((steps, slots))
    for b in range(slots):
        targets[steps, b] = values[steps, b]
        for s in range(steps):
            targets[s, b] = values[s, b]
            for t in range(s, steps):
                product = 1.0
                for i in range(s, t):
                    product *= discounts[i, b] * trace_lambda * min(c_clip, ratios[i, b])
                rho = min(rho_clip, ratios[t, b])
                delta = rho * (rewards[t, b] + discounts[t, b] * values[t + 1, b] - values[t, b])
                targets[s, b] += product * delta
        for s in range(steps):
            rho = min(rho_clip, ratios[s, b])
            advantages[s, b] = rho * (rewards[s, b] + discounts[s, b] * targets[s + 1, b] - values[s, b])
    return targets[:-1], advantages


@pytest.mark.parametrize(("rho_clip", "c_clip"), [(1.0, 1.0), (2.0, 0.7), (1.2, 1.0), (0.5, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_sum_in_the_paper(rho_clip: float, c_clip: float, seed: int) -> None:
    inputs = random_inputs(seed)
    ratios = np.exp(inputs["target_log_probs"] - inputs["behaviour_log_probs"])
    for threshold in (rho_clip, c_clip):
        assert 3 <= (ratios > threshold).sum() <= ratios.size - 3
    assert (inputs["discounts"][:-1] == 0).any()
    result = vtrace(**tensors(inputs), rho_clip=rho_clip, c_clip=c_clip)
    targets, advantages = by_definition(inputs, rho_clip, c_clip)
    np.testing.assert_allclose(result.targets, targets, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.weighted_advantages, advantages, rtol=1e-12, atol=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 9),
    slots=st.integers(1, 3),
    end_probability=st.sampled_from([0.0, 0.3, 1.0]),
    rho_clip=st.floats(0.1, 5.0),
    c_clip=st.floats(0.1, 5.0),
    trace_lambda=st.floats(0.0, 1.0),
)
def test_it_is_the_sum_in_the_paper_for_any_size(
    seed: int,
    steps: int,
    slots: int,
    end_probability: float,
    rho_clip: float,
    c_clip: float,
    trace_lambda: float,
) -> None:
    inputs = random_inputs(seed, steps, slots, end_probability)
    result = vtrace(**tensors(inputs), rho_clip=rho_clip, c_clip=c_clip, trace_lambda=trace_lambda)
    targets, advantages = by_definition(inputs, rho_clip, c_clip, trace_lambda)
    np.testing.assert_allclose(result.targets, targets, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.weighted_advantages, advantages, rtol=1e-9, atol=1e-9)


def test_thresholds_and_lambda_are_1_by_default() -> None:
    inputs = tensors(random_inputs(0))
    published = vtrace(**inputs, rho_clip=1.0, c_clip=1.0, trace_lambda=1.0)
    for got, expected in zip(vtrace(**inputs), published, strict=True):
        assert torch.equal(got, expected)


def test_the_thresholds_do_different_things() -> None:
    inputs = tensors(random_inputs(0))
    plain = vtrace(**inputs)
    assert not torch.allclose(vtrace(**inputs, rho_clip=2.0).targets, plain.targets)
    other_trace = vtrace(**inputs, c_clip=0.5)
    assert not torch.allclose(other_trace.targets[:-1], plain.targets[:-1])
    # The last step has no trace behind it.
    torch.testing.assert_close(other_trace.targets[-1], plain.targets[-1])


def test_on_policy_without_ends_it_is_the_bootstrapped_return() -> None:
    inputs = random_inputs(5, end_probability=0.0)
    inputs["target_log_probs"] = inputs["behaviour_log_probs"].copy()
    discount = inputs["discounts"][0, 0]
    targets = vtrace(**tensors(inputs)).targets
    for s in range(T):
        expected = discount ** (T - s) * inputs["bootstrap_value"]
        expected = expected + sum(discount ** (t - s) * inputs["rewards"][t] for t in range(s, T))
        np.testing.assert_allclose(targets[s], expected, rtol=1e-12)


def test_lambda_0_is_the_one_step_target() -> None:
    inputs = random_inputs(6)
    inputs["target_log_probs"] = inputs["behaviour_log_probs"].copy()
    after = np.concatenate([inputs["values"][1:], inputs["bootstrap_value"][None]])
    targets = vtrace(**tensors(inputs), trace_lambda=0.0).targets
    np.testing.assert_allclose(targets, inputs["rewards"] + inputs["discounts"] * after, rtol=1e-12)


def test_nothing_after_an_end_reaches_back() -> None:
    inputs = tensors(random_inputs(1, end_probability=0.0))
    inputs["discounts"][3] = 0.0
    before = vtrace(**inputs)
    for name in ("rewards", "values", "target_log_probs"):
        inputs[name][4:] += 1.0
    inputs["bootstrap_value"] += 1.0
    after = vtrace(**inputs)
    assert torch.equal(before.targets[:4], after.targets[:4])
    assert torch.equal(before.advantages[:4], after.advantages[:4])
    assert not torch.allclose(before.targets[4:], after.targets[4:])


def test_neither_estimate_carries_gradient() -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in tensors(random_inputs(2)).items()}
    result = vtrace(**inputs)
    assert not result.targets.requires_grad
    assert not result.advantages.requires_grad


def test_inputs_are_not_modified() -> None:
    inputs = tensors(random_inputs(3))
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    vtrace(**inputs)
    for name, tensor in inputs.items():
        assert torch.equal(tensor, copies[name]), name


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("behaviour_log_probs", (T, 1)),
        ("target_log_probs", (T + 1, B)),
        ("rewards", (B, T)),
        ("rewards", (T,)),
        ("discounts", (T, B, 1)),
        ("discounts", ()),
        ("values", (T + 1, B)),
        ("values", (1, B)),
        ("bootstrap_value", (1, B)),
        ("bootstrap_value", (1,)),
        ("bootstrap_value", ()),
    ],
)
def test_wrong_shapes_raise_instead_of_broadcasting(name: str, shape: tuple[int, ...]) -> None:
    inputs = tensors(random_inputs(0))
    inputs[name] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"takes \(T, B\) tensors"):
        vtrace(**inputs)
