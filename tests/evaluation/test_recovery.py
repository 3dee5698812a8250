from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import IMPALA, Agent
from common.errors import UserError
from envs import ProcgenVecEnv, Task
from evaluation import Protocol, evaluate
from evaluation.loading import task_numbers
from evaluation.recovery import STREAMS, play_in_a_row, policies_under, shown_episodes
from evaluation.tasks import groups, score
from policies import TaskConfig, policy_config

TASK = Task("bossfight")


def agent_with(core: str, **settings: object) -> Agent:
    env = ProcgenVecEnv("bossfight", 2, num_threads=0)
    env.close()
    return IMPALA(policy_config(core, **settings), env, seed=0, rollout_steps=2, device="cpu")


@pytest.mark.parametrize(
    ("core", "names"),
    [
        ("srwm", ["fresh", "carried", "frozen"]),
        ("lstm", ["fresh", "carried"]),
        ("feedforward", ["fresh"]),
    ],
)
def test_each_core_is_asked_what_makes_sense_for_it(core: str, names: list[str]) -> None:
    agent = agent_with(core)
    conditions = list(policies_under(agent, agent.actors.collector.core_state))
    assert [condition.name for condition in conditions] == names
    assert all(condition.policy.config.reset == "never" for condition in conditions)
    assert agent.policy.config.reset == "episode"


def test_episodes_in_a_row_repeat_and_begin_with_the_memory_they_are_given() -> None:
    agent = agent_with("lstm")
    fresh, carried = policies_under(agent, agent.policy.initial_state(3))
    first = play_in_a_row(fresh, TASK, 2, False, num_threads=0)
    assert first.returns.shape == (STREAMS, 2)
    assert first.steps > 2 * STREAMS
    # A memory that is still empty is no other than none.
    again = play_in_a_row(carried, TASK, 2, False, num_threads=0)
    assert np.array_equal(first.returns, again.returns)
    assert first.steps == again.steps
    full = {name: tensor + 3.0 for name, tensor in agent.policy.initial_state(3).items()}
    _, other = policies_under(agent, full)
    assert play_in_a_row(other, TASK, 2, False, num_threads=0).steps != first.steps


def test_which_episodes_are_looked_at() -> None:
    assert [shown_episodes(count) for count in (1, 2, 3, 16, 20)] == [
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 4, 8, 16],
        [1, 2, 4, 8, 16],
    ]


# Tasks side by side, and policies that are told


def test_tasks_are_grouped_as_far_as_they_can_play_side_by_side() -> None:
    tasks = [Task("maze"), Task("climber", "easy", "3:4"), Task("climber", "easy", "5:6"), Task("miner")]
    found = [
        ([str(task) for _, task in group.tasks], group.split, group.levels)
        for group in groups(tasks, ("train", "test1"))
    ]
    assert found == [
        (["maze", "miner"], "train", "train"),
        (["climber/easy/3:4"], "train", "3:4"),
        (["climber/easy/5:6"], "train", "5:6"),
        (["maze", "climber/easy/3:4", "miner"], "test1", "test1"),
        (["climber/easy/5:6"], "test1", "test1"),
    ]


@pytest.fixture
def told() -> Agent:
    """Its head for the first task never moves, that for the second always fires."""
    agent = agent_with("feedforward", tasks=TaskConfig(2, "told", "per-task"))
    agent.experiment = {"games": ["bossfight", "starpilot"], "mode": "easy", "levels": "train"}
    with torch.no_grad():
        weight, bias = agent.policy.actor.weight, agent.policy.actor.bias
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        weight.zero_()
        bias.zero_()
        bias[0, 4], bias[1, 9] = 50.0, 50.0
    return agent


def test_a_policy_that_is_told_plays_each_game_with_its_own_head(told: Agent) -> None:
    assert task_numbers(told, ["starpilot", "bossfight"], "easy") == [1, 0]
    (group,) = groups([Task("bossfight"), Task("starpilot")], ["train"])
    still, firing = score(told, group, 10, greedy=True, num_threads=0)
    assert still.raw.mean == pytest.approx(0.0)  # nothing in bossfight is won by standing still
    assert firing.raw.mean > 0.5
    protocol = Protocol(("starpilot",), splits=("train",), episodes=10)
    assert evaluate(told, protocol, num_threads=0).scores[0].episodes == firing.episodes
    assert evaluate(told, protocol, num_threads=0, tasks=[0]).scores[0].raw.mean < firing.raw.mean


def test_a_game_that_is_none_of_the_tasks(told: Agent) -> None:
    with pytest.raises(UserError, match="maze is none of them: its tasks are bossfight, starpilot"):
        evaluate(told, Protocol(("maze",), splits=("train",), episodes=1), num_threads=0)


def test_single_levels_are_told_apart(told: Agent) -> None:
    told.experiment["sequence"] = {"tasks": ["bossfight/easy/3:4", "bossfight/easy/7:8"]}
    assert task_numbers(told, ["bossfight"], "easy", "7:8") == [1]
    assert task_numbers(told, ["bossfight"], "easy", "test1") == [0]
    agent = agent_with("feedforward")
    assert task_numbers(agent, ["maze", "miner"], "hard") == [0, 0]
