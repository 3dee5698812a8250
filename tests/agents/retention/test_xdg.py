"""Context-dependent gating in training: what one task learns, another one with other units does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from agents import IMPALA
from agents.acting import Actor
from agents.learner import Learner
from agents.retention import RetentionConfig
from agents.rollout import Batch
from policies import TASK, Policy, PolicyConfig, TaskConfig

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]
MakeEnv = Callable[..., Any]
Tiny = Callable[..., PolicyConfig]

APART = TaskConfig(2, "told", "per-task", gated_share=0.5, gated_apart=True)


def said(policy: Policy, batch: Batch, task: int) -> torch.Tensor:
    state = policy.initial_state(batch.actions.shape[1], task=task)
    with torch.no_grad():
        output = policy(batch.rgb, batch.reward_input, state, batch.episode_start)
    return torch.cat([output.logits, output.value.unsqueeze(-1)], -1)


@pytest.mark.parametrize("core", ["feedforward", "lstm", "srwm"])
def test_units_apart_leave_the_other_task_as_it_was_to_the_bit(
    core: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner(core=core, policy={"tasks": APART})
    for name, parameter in made.policy.named_parameters():
        parameter.requires_grad_(
            name.startswith(("encoder.linear", "actor", "critic")) or ".linear1." in name
        )
    batch = random_batch(made.policy, 6, 4)
    before = [said(made.policy, batch, task) for task in (0, 1)]
    state = {**batch.initial_state, TASK: torch.ones(4, dtype=torch.int64)}
    for _ in range(3):
        made.learn(Batch(**{**vars(batch), "initial_state": state}), 0)
    assert torch.equal(said(made.policy, batch, 0), before[0])
    assert not torch.equal(said(made.policy, batch, 1), before[1])


def test_acting_learning_and_evaluation_use_the_same_units(tiny: Tiny, toy: MakeEnv) -> None:
    policy = tiny("srwm", tasks=TaskConfig(2, "told"))
    agent = IMPALA(
        policy, toy(4), retention="xdg", retain=RetentionConfig(gated_share=0.5), seed=3, rollout_steps=5
    )
    assert agent.policy_config.tasks.gated_share == 0.5
    assert agent.policy_config.tasks.gate_seed == 3
    agent.change_task(toy(4), 1)
    batch = next(iter(agent._consolidation_rollouts(1)))
    assert batch.initial_state[TASK].tolist() == [1] * 4
    with torch.no_grad():
        learned = agent.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
    torch.testing.assert_close(learned.logits[:-1], batch.logits, rtol=1e-4, atol=1e-5)
    assert learned.features is not None
    assert ((learned.features != 0).any(0).any(0).sum() - 1) <= 8  # of 16, and the reward

    actor = Actor(agent.policy, 4, agent.device, torch.Generator())
    actor.tell(torch.tensor([0, 1, 1, 0]))
    logits = actor.step(
        {"rgb": batch.rgb[0], "reward": batch.reward_input[0]}, torch.ones(4, dtype=torch.bool)
    ).logits
    started = Batch(**{**vars(batch), "episode_start": torch.ones_like(batch.episode_start)})
    for task, columns in ((0, [0, 3]), (1, [1, 2])):
        torch.testing.assert_close(logits[columns], said(agent.policy, started, task)[0, columns, :-1])


def test_units_are_silent_in_both_copies_where_rollouts_lag(tiny: Tiny, toy: MakeEnv) -> None:
    """The policy that acts is a copy; it has the same masks and hears of the same tasks."""
    policy = tiny("lstm", tasks=TaskConfig(2, "told", "per-task"))
    agent = IMPALA(policy, toy(4), retention="xdg", seed=0, rollout_steps=5, rollout_lag=1)
    agent.learn(40)
    agent.change_task(toy(4), 1)
    agent.learn(40, reset_num_timesteps=False)
    acting = agent.actors.behaviour
    assert acting is not agent.policy
    assert torch.equal(acting.gate.masks, agent.policy.gate.masks)  # type: ignore[arg-type]
    assert agent.actors.collector.core_state[TASK].tolist() == [1] * 4


def test_the_observed_task_is_told_to_predict(tiny: Tiny, toy: MakeEnv) -> None:
    agent = IMPALA(tiny("lstm", tasks=TaskConfig(2, "told", "per-task")), toy(4), seed=0, rollout_steps=5)
    observation = toy(4).reset()
    for task in (0, 1):
        agent.task = task
        _, state = agent.predict(observation)
        assert state[TASK].tolist() == [task] * 4
