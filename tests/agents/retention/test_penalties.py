"""Penalties against their sums written out, and against the minimiser of the local problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from agents.learner import Learner
from agents.retention import RETENTIONS
from agents.retention.quadratic import QuadraticPenalty, Springs
from agents.rollout import Batch

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]

STRENGTHS = {
    name: next(iter(method.inert))
    for name, method in RETENTIONS.items()
    if issubclass(method, QuadraticPenalty)
}
"""The setting that says how strong each penalty of the registry is."""
HALVES = {name: 1.0 if name == "si" else 0.5 for name in STRENGTHS}


def random_springs(learner: Learner, seed: int) -> Springs:
    generator = torch.Generator().manual_seed(seed)
    parameters: list[Tensor] = learner.retention.weights.parameters  # type: ignore[attr-defined]

    def drawn(scale: float) -> list[Tensor]:
        return [scale * torch.rand(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    return Springs(drawn(2.0), [p.detach() + d - 0.05 for p, d in zip(parameters, drawn(0.1), strict=True)])


def written_out(learner: Learner, springs: Springs) -> Tensor:
    parameters = learner.retention.weights.parameters  # type: ignore[attr-defined]
    parts = zip(springs.stiffness, parameters, springs.anchor, strict=True)
    return torch.stack([(f * (p - a).square()).sum() for f, p, a in parts]).sum()


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_the_gradient_is_that_of_the_sum_written_out(name: str, learner: MakeLearner) -> None:
    made = learner(name, double=True, **{STRENGTHS[name]: 3.0})
    method: Any = made.retention
    method.springs = random_springs(made, 0)
    penalty = 3.0 * HALVES[name] * written_out(made, method.springs)
    wanted = torch.autograd.grad(7.0 * penalty, method.weights.parameters)
    made.optimizer.zero_grad()
    logged = method.add_gradients(7.0)
    torch.testing.assert_close(method.weights.gradients(), list(wanted))
    torch.testing.assert_close(logged[f"{name}_penalty"], penalty.detach())


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_nothing_pulls_at_the_anchor(name: str, learner: MakeLearner) -> None:
    made = learner(name)
    method: Any = made.retention
    method.springs = Springs.mean([Springs(random_springs(made, 0).stiffness, method.weights.values())])
    made.optimizer.zero_grad()
    logged = method.add_gradients(1.0)
    assert float(logged[f"{name}_penalty"]) == 0.0
    assert all(not gradient.any() for gradient in method.weights.gradients())


@pytest.mark.parametrize("factor", [None, 1.0])
def test_springs_of_two_tasks_together_are_the_sum_of_both(
    factor: float | None, learner: MakeLearner
) -> None:
    made = learner("ewc", double=True)
    both = [random_springs(made, seed) for seed in (0, 1)]
    both[0].stiffness[0].zero_()  # a weight that the first task does not need,
    both[1].stiffness[0].zero_()  # nor the second
    together = Springs.mean(both, factor)
    value = 0.5 * written_out(made, together) + together.constant
    wanted = 0.5 * sum(written_out(made, springs) for springs in both) * (factor or 0.5)
    torch.testing.assert_close(value, wanted)
    parameters = made.retention.weights.parameters  # type: ignore[attr-defined]
    torch.testing.assert_close(
        torch.autograd.grad(value, parameters), torch.autograd.grad(wanted, parameters)
    )


def test_a_task_that_comes_back_replaces_its_springs(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("ewc")
    method: Any = made.retention
    for task, seed in ((0, 0), (1, 1), (0, 2)):
        method.end_task(task, lambda count, seed=seed: iter([random_batch(made.policy, 6, 4, seed)]))
        with torch.no_grad():
            method.weights.parameters[0].add_(1.0)
    anchors = [float(method.state()["tasks"][task]["anchor"][method.weights.names[0]].sum()) for task in "01"]
    assert len(method.state()["tasks"]) == 2
    assert anchors[0] > anchors[1]  # of the second visit


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_decoupled_steps_go_to_the_minimiser_of_the_local_problem(name: str, learner: MakeLearner) -> None:
    made = learner(name, double=True, decoupled=True, **{STRENGTHS[name]: 3.0})
    method: Any = made.retention
    method.springs = springs = random_springs(made, 0)
    made.optimizer.zero_grad()
    method.add_gradients(7.0)
    assert all(p.grad is None for p in method.weights.parameters)
    rate, before = made.optimizer.param_groups[0]["lr"], method.weights.values()
    method.see_gradients(1.0)
    method.after_step()
    now = zip(method.weights.parameters, before, springs.stiffness, springs.anchor, strict=True)
    for parameter, old, stiffness, anchor in now:
        # d/dx [ (x - old)^2 / (2 rate) + strength stiffness (x - anchor)^2 (1/2) ] = 0
        slope = (parameter - old) / rate + 2 * HALVES[name] * 3.0 * stiffness * (parameter - anchor)
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exponent=st.floats(-8, 12), decoupled=st.booleans(), name=st.sampled_from(list(STRENGTHS)))
def test_no_strength_makes_training_explode(
    exponent: float, decoupled: bool, name: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner(name, core="lstm", decoupled=decoupled, **{STRENGTHS[name]: 10.0**exponent})
    method: Any = made.retention
    method.springs = random_springs(made, 0)
    for _ in range(2):
        made.learn(random_batch(made.policy, 6, 4), 0)
    assert all(p.isfinite().all() for p in method.weights.parameters)


def test_only_the_weights_of_the_self_referential_matrices_are_held_if_asked(
    learner: MakeLearner, random_batch: MakeBatch
) -> None:
    names = {
        which: set(learner("ewc", ewc_weights=which).retention.weights.names)  # type: ignore[attr-defined]
        for which in ("all", "w0", "rest")
    }
    assert names["w0"] == {"core.layers.0.w0"}
    assert names["rest"] == names["all"] - names["w0"]


def test_online_ewc_forgets_by_its_rate_and_normalises_tensors(
    learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("online_ewc", online_ewc_decay=0.5, double=True)
    method: Any = made.retention
    found: list[list[Tensor]] = []
    measure = method.measure
    method.measure = lambda rollouts: found.append(measure(rollouts)) or found[-1]
    made.policy.float()
    for task in range(3):
        method.end_task(task, lambda count, task=task: iter([random_batch(made.policy, 6, 4, task)]))
    for index, total in enumerate(method.springs.stiffness):
        wanted = sum(0.5 ** (2 - k) * found[k][index] / found[k][index].norm() for k in range(3))
        torch.testing.assert_close(total, wanted)
