"""The weight plasticity loss: its cross term against dense matrices, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents.learner import Learner
from agents.retention.wpl import CrossTerm
from agents.rollout import Batch

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]

K, PRIVATE, SHARED, FLOOR = 5, 4, 6, 0.3


def gradients() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(  # type: ignore[return-value]
        torch.randn(K, size, generator=generator, dtype=torch.float64) for size in (PRIVATE, SHARED)
    )


def hessian() -> torch.Tensor:
    both = torch.cat(gradients(), 1)
    return FLOOR * torch.eye(PRIVATE + SHARED, dtype=torch.float64) + both.t() @ both / K


def test_the_cross_term_is_the_schur_complement() -> None:
    h = hessian()
    h11, h1s, hss = h[:PRIVATE, :PRIVATE], h[:PRIVATE, PRIVATE:], h[PRIVATE:, PRIVATE:]
    omega = hss - h1s.t() @ torch.linalg.inv(h11) @ h1s
    anchor, theta = torch.arange(6.0, dtype=torch.float64), torch.linspace(-1, 1, 6, dtype=torch.float64)
    value, pull = CrossTerm.of(*gradients(), FLOOR, anchor)(theta)
    v = theta - anchor
    torch.testing.assert_close(value, 0.5 * v @ omega @ v)
    torch.testing.assert_close(pull, omega @ v)


def test_it_is_the_price_once_private_weights_have_adapted() -> None:
    h, v = hessian(), torch.linspace(-1, 1, SHARED, dtype=torch.float64)
    best = -torch.linalg.solve(h[:PRIVATE, :PRIVATE], h[:PRIVATE, PRIVATE:] @ v)
    joint = torch.cat([best, v])
    value, _ = CrossTerm.of(*gradients(), FLOOR, torch.zeros_like(v))(v)
    torch.testing.assert_close(value, 0.5 * joint @ h @ joint)
    held = torch.cat([torch.zeros_like(best), v])
    assert value < 0.5 * held @ h @ held


def test_without_private_weights_it_is_the_shared_block() -> None:
    _, shared = gradients()
    v = torch.linspace(-1, 1, SHARED, dtype=torch.float64)
    value, _ = CrossTerm.of(torch.zeros(K, 1, dtype=torch.float64), shared, FLOOR, torch.zeros_like(v))(v)
    torch.testing.assert_close(value, 0.5 * v @ hessian()[PRIVATE:, PRIVATE:] @ v)


@pytest.mark.parametrize("form", ["diagonal", "schur"])
def test_only_shared_weights_are_pulled(form: str, learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("wpl", wpl_form=form, wpl_unrolls=3)
    method: Any = made.retention
    method.end_task(0, lambda count: iter([random_batch(made.policy, 6, 4)] * count))
    made.optimizer.zero_grad()
    assert float(method.add_gradients(1.0)["wpl_penalty"]) == 0.0  # at the anchor
    with torch.no_grad():
        for parameter in made.policy.parameters():
            parameter.add_(0.1)
    made.optimizer.zero_grad()
    first = float(method.add_gradients(1.0)["wpl_penalty"])
    pulled = {name: p.grad for name, p in made.policy.named_parameters() if p.grad is not None}
    assert all(name.startswith("encoder.") for name in pulled)
    assert any(gradient.any() for gradient in pulled.values())
    for _ in range(3):  # the strength does not compound
        made.optimizer.zero_grad()
        assert float(method.add_gradients(1.0)["wpl_penalty"]) == pytest.approx(first)


def test_sensitivities_run_and_are_clipped(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("wpl", wpl_clip=1e-4)
    method: Any = made.retention
    for task in range(2):
        rollout = random_batch(made.policy, 6, 4, task)
        method.end_task(task, lambda count, rollout=rollout: iter([rollout]))
        assert all(float(tensor.norm()) <= 1.0001e-4 for tensor in method.springs.stiffness)
