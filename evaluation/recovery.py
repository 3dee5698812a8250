"""What of a lost task comes back by playing it, without gradient.

A policy that writes its own weights while it plays may find again in a few episodes what training has overwritten. So
old tasks are played for several episodes in a row, from an empty memory, from the memory that the present task left,
and without writing; the memory is never cleared in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents import Agent
from agents.acting import greedy as most_likely
from envs import ProcgenVecEnv, Task
from evaluation.agent_info import policy_copy
from evaluation.play import Player, action_seed, sampler
from evaluation.progress import Progress, Report, no_report
from evaluation.tasks import SEED
from policies import Policy, State

FRESH, CARRIED, FROZEN = "fresh", "carried", "frozen"
STREAMS = 16
"""Environments that play side by side, each its own episodes in a row."""


@dataclass(frozen=True)
class InARow:
    """Episodes in a row.

    Attributes:
        returns: raw, of each environment's first, second, ... episode (STREAMS, episodes).
        steps: environment steps that they took.
    """

    returns: NDArray[np.float64]
    steps: int


def shown_episodes(episodes: int) -> list[int]:
    """The numbers of the episodes that are looked at: 1, 2, 4, 8, ...

    >>> shown_episodes(10)
    [1, 2, 4, 8]
    """
    return [2**power for power in range(episodes.bit_length()) if 2**power <= episodes]


@dataclass(frozen=True)
class Condition:
    """How a lost task is played.

    Attributes:
        name: fresh, carried or frozen.
        policy: a copy whose memory is cleared by nothing.
        memory: what it remembers at first, for `STREAMS` environments; None for nothing.
    """

    name: str
    policy: Policy
    memory: State | None = None


def policies_under(agent: Agent, carried: State) -> Iterator[Condition]:
    """Each condition that makes sense for the agent's core.

    `carried` is the memory of as many environments as there are, in training.
    """
    policy = policy_copy(agent, "never")
    yield Condition(FRESH, policy)
    if agent.policy.is_recurrent:
        memory: Mapping[str, Any] = agent.policy.core.memory(carried)
        rows = np.arange(STREAMS) % len(next(iter(memory.values())))
        yield Condition(CARRIED, policy, {name: tensor[rows].clone() for name, tensor in memory.items()})
    if agent.policy.core.self_modifying:
        frozen = policy_copy(agent, "never")
        frozen.core.set_writing(False)
        yield Condition(FROZEN, frozen)


def play_in_a_row(
    condition: Condition,
    task: Task,
    episodes: int,
    greedy: bool,
    number: int = 0,
    report: Report = no_report,
    *,
    num_threads: int = 4,
) -> InARow:
    """Play so many episodes in a row in each of `STREAMS` environments.

    Args:
        condition: who plays, and what it remembers.
        task: on the levels that it is trained on; the same ones at every call.
        episodes: of each environment.
        greedy: take the most likely action instead of drawing one.
        number: of the task, for a policy that is told.
        report: called after each step.
        num_threads: native threads that step the games; changes no result.
    """
    levels, policy = task.level_range, condition.policy
    chooser = most_likely if greedy else sampler(action_seed(SEED, task.game, levels), policy.device)
    env = ProcgenVecEnv([task.game], STREAMS, task.mode, levels, SEED, num_threads=num_threads)
    try:
        player = Player(policy, [env], [chooser], tasks=[number] * STREAMS)
        if condition.memory is not None:
            player.state = {**player.state, **condition.memory}
        return _play(player, episodes, report)
    finally:
        env.close()


def _play(player: Player, episodes: int, report: Report) -> InARow:
    returns = np.zeros((player.num_envs, episodes))
    ended = np.zeros(player.num_envs, dtype=np.int64)
    steps = 0
    for step in player.play():
        steps += int(player.active.sum())
        for stream in np.flatnonzero(step.ended):
            returns[stream, ended[stream]] = step.infos[stream]["episode"]["r"]
            ended[stream] += 1
        player.active = ended < episodes
        report(Progress(int(ended.sum()), returns.size, "in a row"))
    return InARow(returns, steps)
