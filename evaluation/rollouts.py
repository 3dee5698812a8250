"""Play a fixed number of episodes in each slot of an environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents import Actor
from envs.native import NO_OP


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        score: sum of the raw rewards.
        length: steps.
        level: seed of the level.
        complete: whether the game says that the level was solved.
    """

    score: float
    length: int
    level: int
    complete: bool


def episode_quotas(episodes: int, slots: int) -> NDArray[np.int64]:
    """How many episodes each slot plays, (slots,): as equal as can be, and known before the first step.

    If slots played on until enough episodes have ended anywhere, short episodes would be counted too often.
    The quotas are those of `stable_baselines3.common.evaluation.evaluate_policy`.
    """
    return (episodes + np.arange(slots)) // slots


def play_episodes(
    env: VecEnv,
    actor: Actor,
    quotas: Sequence[int] | NDArray[np.int64],
    greedy: bool,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Reset `env` and play until every slot has ended its share of episodes.

    The policy runs only for the slots that still play; no episode's course depends on another slot.

    Args:
        env: N slots whose infos describe episodes as `envs.ProcgenVecEnv` does.
        actor: with fresh states for N environments.
        quotas: episodes for each slot (N,).
        greedy: take the most likely action instead of drawing one.
        on_episode: is called after each episode that counts.

    Returns:
        The episodes in the order in which they ended (within a step: by slot).
    """
    left = np.array(quotas, dtype=np.int64)
    if left.shape != (env.num_envs,):
        raise ValueError(f"quotas must be {env.num_envs}, one for each slot, not of shape {left.shape}")
    playing = np.flatnonzero(left > 0)
    _keep_states(actor, playing)
    episodes: list[Episode] = []
    observation = env.reset()
    starts = np.ones(env.num_envs, dtype=bool)
    actions = np.full(env.num_envs, NO_OP)
    while len(playing):
        assert isinstance(observation, dict)
        seen = {key: value[playing] for key, value in observation.items()}
        actions[playing] = actor.step(seen, starts[playing], greedy).actions.cpu().numpy()
        observation, _, starts, infos = env.step(actions)
        for slot in playing[starts[playing]]:
            episodes.append(_episode(infos[slot]))
            left[slot] -= 1
            on_episode()
        if not left[playing].all():
            still = np.flatnonzero(left[playing])
            playing = playing[still]
            _keep_states(actor, still)
            actions[left == 0] = NO_OP
    return episodes


def _keep_states(actor: Actor, rows: NDArray[np.int64]) -> None:
    index = torch.as_tensor(rows, device=actor.device)
    actor.state = {name: tensor.index_select(0, index) for name, tensor in actor.state.items()}


def _episode(info: dict[str, object]) -> Episode:
    episode = info["episode"]
    level, complete = info["prev_level_seed"], info["prev_level_complete"]
    assert isinstance(episode, dict)
    assert isinstance(level, int)
    assert isinstance(complete, bool)
    return Episode(float(episode["r"]), int(episode["l"]), level, complete)
