"""The path integral of synaptic intelligence: it adds up to the drop of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents.learner import Interrupted, Learner
from agents.rollout import Batch

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]


def descend(method: Any, rate: float, steps: int, curvature: list[torch.Tensor], midpoint: bool) -> float:
    """Gradient descent on 1/2 sum c x^2 of all weights; returns the drop of the loss."""

    def loss() -> torch.Tensor:
        pairs = zip(curvature, method.weights.parameters, strict=True)
        return torch.stack([0.5 * (c * p.square()).sum() for c, p in pairs]).sum().detach()

    before = float(loss())
    for _ in range(steps):
        for c, p in zip(curvature, method.weights.parameters, strict=True):
            gradient = (c * p).detach()
            p.grad = gradient * (1 - rate * c / 2) if midpoint else gradient.clone()
        method.see_gradients(1.0)
        with torch.no_grad():
            for c, p in zip(curvature, method.weights.parameters, strict=True):
                p.sub_(rate * c * p)
        method.after_step()
    return before - float(loss())


@pytest.mark.parametrize(
    ("rate", "midpoint", "tolerance"),
    [(0.1, False, 0.2), (0.01, False, 0.02), (0.001, False, 0.002), (0.1, True, 1e-9)],
)
def test_the_path_adds_up_to_the_drop_of_the_loss(
    rate: float, midpoint: bool, tolerance: float, learner: MakeLearner
) -> None:
    """On a quadratic, up to the length of the steps; exactly with the gradient at the middle of each step."""
    made = learner("si", core="lstm", double=True)
    method: Any = made.retention
    curvature = [1.0 + torch.rand_like(p) for p in method.weights.parameters]
    drop = descend(method, rate, 20, curvature, midpoint)
    total = float(torch.stack([w.sum() for w in method.path]).sum())
    assert total / drop == pytest.approx(1.0, abs=tolerance)
    if not midpoint:
        assert total > drop


def test_clipping_and_penalties_do_not_count(learner: MakeLearner, random_batch: MakeBatch) -> None:
    """The gradient that is looked at is the task's own, whatever is added to it and however it is cut afterwards."""
    seen = []
    for names, norm in (("si", 1e9), ("ewc+si", 1e-3), ("si+ewc", 1e-3)):
        made = learner(names, agent={"max_grad_norm": norm}, ewc_strength=1e3)
        parts = {method.name: method for method in getattr(made.retention, "methods", [made.retention])}
        if "ewc" in parts:
            ewc: Any = parts["ewc"]
            rollout = random_batch(made.policy, 6, 4)
            ewc.end_task(0, lambda count, rollout=rollout: iter([rollout]))
            with torch.no_grad():
                for anchor in ewc.springs.anchor:
                    anchor.add_(1.0)
        made.learn(random_batch(made.policy, 6, 4), 0)
        si: Any = parts["si"]
        seen.append(torch.cat([g.flatten() for g in si._gradients]))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("algorithm", ["impala", "ppo"])
def test_the_path_is_in_units_of_a_mean_per_step(
    algorithm: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("si", algorithm=algorithm)
    batch = next(iter(made.batches(random_batch(made.policy, 6, 8))))
    losses = made.losses(batch)
    wanted = torch.autograd.grad(losses.total / made.loss_scale(batch), made.retention.weights.parameters)  # type: ignore[attr-defined]
    made._update(batch)
    for one, other in zip(made.retention._gradients, wanted, strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(one, other)


def test_a_phase_that_is_undone_leaves_no_path(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("si")
    method: Any = made.retention
    made.learn(random_batch(made.policy, 6, 4), 0)
    before = [w.clone() for w in method.path]
    assert any(w.any() for w in before)
    after_step = method.after_step

    def failing() -> None:
        after_step()
        raise Interrupted

    method.after_step = failing
    with pytest.raises(Interrupted):
        made.learn(random_batch(made.policy, 6, 4, seed=1), 0)
    assert all(torch.equal(a, b) for a, b in zip(method.path, before, strict=True))


def test_importance_at_the_end_of_a_task(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("si", si_damping=0.01)
    method: Any = made.retention
    start = method.weights.values()
    made.learn(random_batch(made.policy, 6, 4), 0)
    path, end = [w.clone() for w in method.path], method.weights.values()
    method.end_task(0, lambda count: iter([]))
    for found, w, a, b in zip(method.springs.stiffness, path, start, end, strict=True):
        torch.testing.assert_close(found, w.clamp_min(0) / ((b - a).square() + 0.01))
        assert (found >= 0).all()
    assert not any(w.any() for w in method.path)
    first = [tensor.clone() for tensor in method.springs.stiffness]
    made.learn(random_batch(made.policy, 6, 4), 0)
    method.end_task(1, lambda count: iter([]))
    grown = zip(first, method.springs.stiffness, strict=True)
    assert all((after >= before).all() for before, after in grown)


def test_without_boundaries_it_consolidates_every_so_many_steps(
    learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("si+ewc", every=36)
    assert not made.retention.needs_boundaries
    ewc = made.retention.methods[1]  # type: ignore[attr-defined]
    tasks = []
    for seed in range(4):
        made.learn(random_batch(made.policy, 6, 4, seed), 0)  # 24 steps
        tasks.append(sorted(ewc.state()["tasks"]))
    assert tasks == [[], ["0"], ["0", "1"], ["0", "1"]]
