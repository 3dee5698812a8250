"""Rollouts that an agent of a checkpoint would learn from, to be looked at instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import agents
from agents import PPO
from agents.ppo import PPOLearner
from agents.rollout import Batch
from common.errors import UserError
from envs import ProcgenVecEnv

Found = TypeVar("Found")


def look_at_rollouts(
    checkpoint: Path,
    games: tuple[str, ...],
    num_envs: int,
    rollouts: int,
    seed: int,
    look: Callable[[PPOLearner, Batch, list[str]], Found],
) -> list[Found]:
    """What `look` finds in some rollouts, given the learner, a rollout and the games of its environments.

    The agent of `checkpoint` goes on playing without learning, with its rewards scaled as they were. As many rollouts
    before those looked at only take environments away from the starts of episodes. A rollout's memory is used again for
    the next one: copy what shall be kept. The learner may be used afterwards.

    Raises:
        UserError: there is no such checkpoint, or it is not of PPO.
    """
    env = ProcgenVecEnv(games, num_envs, seed=seed)
    try:
        agent = agents.load(checkpoint, env, device="cpu")
        if not isinstance(agent, PPO):
            raise UserError(f"{checkpoint} is of {agent.algorithm.upper()}: name a checkpoint of PPO")
        learner, collector = agent.learner, agent.actors.collector
        assert isinstance(learner, PPOLearner)
        found: list[Found] = []
        before = rollouts

        def look_on(rollout: Batch, step: int) -> dict[str, float]:
            nonlocal before
            if before:
                before -= 1
            else:
                found.append(look(learner, rollout, list(collector.games)))
            return {}

        learner.learn = look_on  # type: ignore[method-assign]  # instead of learning
        agent.learn(2 * rollouts * num_envs * agent.config.rollout_steps)
        del learner.learn  # the class's own again
    finally:
        env.close()
    return found
