"""Learning without forgetting: the teacher, its state, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents import IMPALA
from agents.learner import Learner
from agents.retention import RetentionConfig
from agents.retention.lwf import distillation
from agents.rollout import Batch
from policies import PolicyConfig, TaskConfig

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]
MakeEnv = Callable[..., Any]
Tiny = Callable[..., PolicyConfig]

TOLD = {"tasks": TaskConfig(3, "told", "per-task")}
CORES = ["feedforward", "lstm", "srwm"]


def left_behind(learner: Learner, *tasks: int) -> Any:
    method: Any = learner.retention
    for task in tasks:
        method.begin_task(task)
        method.end_task(task, lambda count: iter([]))
    method.begin_task(len(tasks))
    return method


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("heads", ["shared", "per-task"])
def test_a_student_that_says_the_same_is_not_pulled(
    heads: str, core: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("lwf", core, policy=TOLD if heads == "per-task" else {})
    method = left_behind(made, 0, 1)
    rollout = random_batch(made.policy, 6, 20)  # more than the teacher looks at together
    method._state = rollout.initial_state
    prepared = method.prepare(rollout)
    assert prepared.targets is not None
    assert prepared.targets.shape == (6, 20, 2 if heads == "per-task" else 1, 4)
    losses = made.losses(prepared)
    term = method.terms(prepared, losses.output)["lwf_distillation"]
    term.backward()
    assert abs(float(term.detach())) < 1e-6
    assert all(p.grad is None or float(p.grad.abs().max()) < 1e-5 for p in made.policy.parameters())


def test_the_term_written_out(learner: MakeLearner) -> None:
    old, new = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 5)
    old_value, value = torch.ones(2, 3), torch.full((2, 3), 3.0)
    total = 0.0
    for t in range(2):
        for b in range(3):
            p, q = (old[t, b] / 2).softmax(0), (new[t, b] / 2).softmax(0)
            total += float(4 * (p * (p / q).log()).sum()) + 0.5 * 0.7 * 4.0
    found = distillation(old, old_value, new, value, 2.0, 0.7)
    assert float(found) == pytest.approx(total / 6, rel=1e-5)


def test_it_weighs_more_with_more_tasks(learner: MakeLearner, random_batch: MakeBatch) -> None:
    found = []
    for tasks in ((0,), (0, 1)):
        made = learner("lwf", "lstm")
        method = left_behind(made, *tasks)
        with torch.no_grad():
            made.policy.actor.bias += torch.arange(3.0)  # type: ignore[operator, arg-type]
        prepared = method.prepare(random_batch(made.policy, 6, 4))
        found.append(float(method.terms(prepared, made.losses(prepared).output)["lwf_distillation"].detach()))
    assert found[1] == pytest.approx(2 * found[0])


@pytest.mark.parametrize("core", CORES)
def test_the_teacher_follows_the_stream_with_its_own_state(core: str, tiny: Tiny, toy: MakeEnv) -> None:
    """What it says of two rollouts is what it says of their frames one by one."""
    agent = IMPALA(tiny(core), toy(4), retention="lwf", seed=0, rollout_steps=5)
    agent.learn(40)
    agent.change_task(toy(4), 1)
    method: Any = agent.retention
    teacher, seen = method.teacher, []
    prepare = method.prepare

    def noting(rollout: Batch) -> Batch:
        found: Batch = prepare(rollout)
        kept = (rollout.rgb, rollout.reward_input, rollout.episode_start, found.targets)
        seen.append([part.clone() for part in kept])  # type: ignore[union-attr]
        return found

    method.prepare = noting
    agent.learn(40, reset_num_timesteps=False)
    state = teacher.initial_state(4)
    assert len(seen) == 2
    for rgb, reward, starts, targets in seen:
        for t in range(5):
            now = slice(t, t + 1)
            with torch.no_grad():
                output = teacher(rgb[now], reward[now], state, starts[now])
            state = output.state
            said = torch.cat([output.logits[0], output.value[0].unsqueeze(-1)], -1)
            torch.testing.assert_close(targets[t, :, 0], said, rtol=1e-4, atol=1e-5)


def test_heads_of_a_task_that_comes_back_are_free(learner: MakeLearner) -> None:
    method = left_behind(learner("lwf", "lstm", policy=TOLD), 0, 1, 2)
    method.begin_task(1)
    assert method._heads == [0, 2]


def test_told_tasks_end_where_they_end(tiny: Tiny, toy: MakeEnv) -> None:
    with pytest.raises(ValueError, match=r"retain.every is for policies that are not told their task"):
        IMPALA(tiny("lstm", **TOLD), toy(4), retention="lwf", retain=RetentionConfig(every=100))
