"""Terms of the losses against torch.distributions and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from agents.losses import (
    action_log_probs,
    clipped_surrogate_loss,
    clipped_value_loss,
    entropy,
    explained_variance,
    normalized,
    policy_gradient_loss,
    value_loss,
)


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3.0 * torch.randn(5, 4, 6, dtype=torch.float64, generator=generator)


@pytest.fixture
def actions() -> Tensor:
    return torch.randint(6, (5, 4), generator=torch.Generator().manual_seed(1))


def gradient(of: Tensor, to: Tensor) -> Tensor:
    return torch.autograd.grad(of.sum(), to)[0]


def test_log_probabilities_are_those_of_torch(logits: Tensor, actions: Tensor) -> None:
    torch.testing.assert_close(
        action_log_probs(logits, actions), Categorical(logits=logits).log_prob(actions)
    )


def test_entropy_is_that_of_torch(logits: Tensor) -> None:
    torch.testing.assert_close(entropy(logits), Categorical(logits=logits).entropy())


def test_entropy_by_hand() -> None:
    torch.testing.assert_close(entropy(torch.zeros(15)), torch.tensor(math.log(15)))
    halves = torch.tensor([0.0, 0.0, -200.0])
    torch.testing.assert_close(entropy(halves), torch.tensor(math.log(2)))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    loss = action_log_probs(logits, torch.tensor([2])).sum() + entropy(logits).sum()
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, logits)).all()


def test_policy_gradient_is_that_of_the_log_probability_times_the_advantage() -> None:
    logits = torch.tensor([0.1, -0.3, 0.7], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor(-2.5, dtype=torch.float64, requires_grad=True)
    action = torch.tensor(1)
    loss = policy_gradient_loss(action_log_probs(logits, action), advantage)
    assert loss.item() == pytest.approx(2.5 * math.log(logits.softmax(0)[1].item()))
    loss.backward()
    one_hot = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, 2.5 * (one_hot - logits.detach().softmax(0)))
    assert advantage.grad is None


# Ratio, advantage, loss and gradient of the loss to the log probability, for a clip range of 0.2.
SURROGATE = [
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.2),
    (1.5, 2.0, -2.4, 0.0),  # would gain too much: held at 1.2
    (0.5, 2.0, -1.0, -1.0),  # a good action made rare: pulled back
    (1.0, -2.0, 2.0, 2.0),
    (0.9, -2.0, 1.8, 1.8),
    (0.5, -2.0, 1.6, 0.0),  # held at 0.8
    (1.5, -2.0, 3.0, 3.0),  # a bad action made frequent: pushed back
]


@pytest.mark.parametrize(("ratio", "advantage", "expected", "slope"), SURROGATE)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, expected: float, slope: float) -> None:
    old = torch.tensor([-1.3], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    loss = clipped_surrogate_loss(new, old, torch.tensor([advantage], dtype=torch.float64), 0.2)
    assert loss.item() == pytest.approx(expected)
    assert gradient(loss, new).item() == pytest.approx(slope)


# Old value, new value, target, loss and gradient to the new value, for a clip range of 0.2.
CLIPPED_VALUES = [
    (1.0, 1.1, 2.0, 0.5 * 0.9**2, -0.9),
    (1.0, 1.5, 2.0, 0.5 * 0.8**2, 0.0),  # moved far enough towards the target
    (1.0, 0.5, 2.0, 0.5 * 1.5**2, -1.5),  # moved away: the free value's loss is larger
    (1.0, 0.5, 0.0, 0.5 * 0.8**2, 0.0),
    (1.0, 3.0, 1.1, 0.5 * 1.9**2, 1.9),  # far beyond the target
]


@pytest.mark.parametrize(("old", "new", "target", "expected", "slope"), CLIPPED_VALUES)
def test_clipped_value_loss_by_hand(
    old: float, new: float, target: float, expected: float, slope: float
) -> None:
    value = torch.tensor([new], dtype=torch.float64, requires_grad=True)
    loss = clipped_value_loss(value, torch.tensor([old]).double(), torch.tensor([target]).double(), 0.2)
    assert loss.item() == pytest.approx(expected)
    assert gradient(loss, value).item() == pytest.approx(slope)


def test_value_loss_is_half_the_squared_error_and_its_target_has_no_gradient() -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    targets = torch.tensor([4.0, -2.5], requires_grad=True)
    loss = value_loss(values, targets)
    torch.testing.assert_close(loss, torch.tensor([4.5, 0.125]))
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([-3.0, 0.5]))
    assert targets.grad is None
    clipped_value_loss(values, values.detach(), targets, 0.2).sum().backward()
    assert targets.grad is None


def test_terms_are_not_reduced(logits: Tensor, actions: Tensor) -> None:
    ones = torch.ones(5, 4, dtype=torch.float64)
    log_probs = action_log_probs(logits, actions)
    for term in (
        log_probs,
        entropy(logits),
        policy_gradient_loss(log_probs, ones),
        clipped_surrogate_loss(log_probs, log_probs, ones, 0.2),
        value_loss(ones, ones),
        clipped_value_loss(ones, ones, ones, 0.2),
    ):
        assert term.shape == (5, 4)


def test_explained_variance() -> None:
    targets = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(torch.zeros(2, 2), targets) == pytest.approx(0.0)
    assert explained_variance(targets + 5.0, targets) == pytest.approx(1.0)
    # The variance of the targets is 3.5, that of the rest 0.25 of it.
    assert explained_variance(0.5 * targets, targets) == pytest.approx(0.75)
    assert math.isnan(explained_variance(targets, torch.ones(2, 2)))


def test_normalized_advantages() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, 9.0]])
    got = normalized(values)
    assert float(got.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(got.std()) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(normalized(1000.0 * values + 7.0).sign(), got.sign())
    assert torch.equal(normalized(torch.tensor([[3.0]])), torch.tensor([[3.0]]))
