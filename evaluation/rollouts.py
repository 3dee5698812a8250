"""Play a fixed number of episodes in each slot of some environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents import Actor
from agents.acting import greedy, sample
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


def episode_quotas(episodes: int, slots: int) -> list[int]:
    """How many episodes each slot plays: as equal as can be, and known before the first step.

    If slots played on until enough episodes have ended anywhere, short episodes would be counted too often.
    The quotas are those of `stable_baselines3.common.evaluation.evaluate_policy`.
    """
    return [(episodes + slot) // slots for slot in range(slots)]


class Match:
    """An environment, and the episodes that its slots have yet to play.

    Args:
        env: N slots whose infos describe episodes as `envs.ProcgenVecEnv` does; it is reset.
        quotas: episodes for each slot (N,).
        choose: actions (B,) for the policy's logits (B, A).
        on_episode: is called after each episode that counts.

    Attributes:
        episodes: those played so far, in the order in which they ended (within a step: by slot).
        playing: slots that have episodes left.
    """

    def __init__(
        self,
        env: VecEnv,
        quotas: Sequence[int],
        choose: Callable[[Tensor], Tensor] = greedy,
        on_episode: Callable[[], None] = lambda: None,
    ) -> None:
        if len(quotas) != env.num_envs:
            raise ValueError(f"{len(quotas)} quotas for {env.num_envs} slots: give one for each")
        self.env = env
        self.episodes: list[Episode] = []
        self._choose, self._on_episode = choose, on_episode
        self._left = np.array(quotas)
        self._actions = np.full(env.num_envs, NO_OP)
        self._observation: Any = env.reset()
        self._starts = np.ones(env.num_envs, dtype=bool)
        self.playing: NDArray[np.int64] = np.flatnonzero(self._left)

    def see(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        """Observations of the slots that still play, and whether each is the first of an episode."""
        seen = {key: value[self.playing] for key, value in self._observation.items()}
        return seen, self._starts[self.playing]

    def act(self, logits: Tensor) -> None:
        """Start a step, given the logits (B, A) for what `see` returned. Other slots hold no key."""
        self._actions[self.playing] = self._choose(logits).cpu().numpy()
        self.env.step_async(self._actions)

    def collect(self) -> NDArray[np.bool_]:
        """Finish the step; which of the slots that still played go on playing, (B,)."""
        self._observation, _, self._starts, infos = self.env.step_wait()
        for slot in self.playing[self._starts[self.playing]]:
            self.episodes.append(_episode(infos[slot]))
            self._left[slot] -= 1
            self._on_episode()
        going_on: NDArray[np.bool_] = self._left[self.playing] > 0
        if not going_on.all():
            self.playing = self.playing[going_on]
            self._actions[self._left == 0] = NO_OP
        return going_on


def _episode(info: dict[str, Any]) -> Episode:
    episode = info["episode"]
    return Episode(
        float(episode["r"]),
        int(episode["l"]),
        int(info["prev_level_seed"]),
        bool(info["prev_level_complete"]),
    )


def play_matches(matches: Sequence[Match], actor: Actor) -> None:
    """Play `matches` side by side until each has its episodes.

    The policy looks at all of them at once, and only at slots that still play. What happens in a slot depends
    on no other slot.

    Args:
        actor: with fresh states for the slots of all matches, in their order.
    """
    playing = np.concatenate([np.isin(np.arange(match.env.num_envs), match.playing) for match in matches])
    _keep(actor, playing)
    while active := [match for match in matches if len(match.playing)]:
        observations, starts = zip(*(match.see() for match in active), strict=True)
        together = {key: np.concatenate([seen[key] for seen in observations]) for key in observations[0]}
        logits = actor.step(together, np.concatenate(starts), deterministic=True).logits
        for match, part in zip(active, logits.split([len(match.playing) for match in active]), strict=True):
            match.act(part)
        going_on = np.concatenate([match.collect() for match in active])
        if not going_on.all():
            _keep(actor, going_on)


def _keep(actor: Actor, rows: NDArray[np.bool_]) -> None:
    """Drop the states of the other rows."""
    index = torch.as_tensor(np.flatnonzero(rows), device=actor.device)
    actor.state = {name: tensor.index_select(0, index) for name, tensor in actor.state.items()}


def sampler(seed: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Draws actions with randomness of its own."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda logits: sample(logits, generator)
