"""The one loop in which a policy plays environments: for scores, streams of games, recordings and the viewer.

>>> player = Player(policy, [env], [greedy])                         # doctest: +SKIP
>>> for step in player.play():                                       # doctest: +SKIP
...     player.active &= ~step.ended                                 # one episode of each environment
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.acting import sample
from common.stages import stage
from envs import Levels
from envs.games import EXPLORATION_LEVELS
from envs.levels import MAX_LEVEL
from envs.native import NO_OP
from policies import Policy, PolicyOutput, State

Chooser = Callable[[Tensor], Tensor]
"""Actions (n,) for logits (n, A)."""


def sampler(seed: int, device: torch.device) -> Chooser:
    """Draws actions with randomness of its own."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda logits: sample(logits, generator)


@dataclass(frozen=True)
class Step:
    """What one step of all N environments of a player led to. Environments that were not active have zeros.

    Attributes:
        actions: chosen (N,).
        rewards: raw (N,).
        ended: whether an episode ended (N,).
        infos: as `envs.ProcgenVecEnv` describes ended episodes, N of them.
    """

    actions: NDArray[np.int64]
    rewards: NDArray[Any]
    ended: NDArray[np.bool_]
    infos: list[dict[str, Any]]


class Player:
    """A policy that plays some vectorised environments side by side, N environments in all.

    The policy sees all of them at once, and only the active ones: the others keep memory and last reward, and hold no
    key. Where all of a vectorised environment are inactive, it is not stepped. What happens in one environment does
    not depend on the others.

    Args:
        policy: plays.
        envs: are reset; their observations have "rgb" and "reward".
        choosers: choose the actions, one for each of `envs`.
        tasks: what each environment plays (N,), for a policy that is told; None for the first task everywhere.

    Attributes:
        active: which environments play on (N,); to be changed between two steps.
        starts: which observations are the first of an episode, as the policy sees it (N,); may be changed, too.
    """

    def __init__(
        self,
        policy: Policy,
        envs: Sequence[VecEnv],
        choosers: Sequence[Chooser],
        tasks: Sequence[int] | None = None,
    ) -> None:
        self.policy, self.envs, self._choosers = policy, envs, choosers
        self._borders = np.cumsum([0, *(env.num_envs for env in envs)])
        self._observations: list[Any] = [env.reset() for env in envs]
        self._actions = np.full(self.num_envs, NO_OP)
        self.active = np.ones(self.num_envs, dtype=bool)
        self.starts = np.ones(self.num_envs, dtype=bool)
        # The states of the active environments are kept together, those of the others apart from them; all of them are
        # put together once somebody asks.
        self._whole: State | None = None
        told = torch.as_tensor([0] * self.num_envs if tasks is None else list(tasks))
        self.state = policy.initial_state(self.num_envs, task=told)

    @property
    def num_envs(self) -> int:
        """N."""
        return int(self._borders[-1])

    @property
    def state(self) -> State:
        """What the policy remembers of all N environments."""
        if self._gathered.all():
            return self._state
        if self._whole is None:
            rows = self._rows(self._gathered)
            self._whole = {
                name: rest.index_copy(0, rows, self._state[name]) for name, rest in self._apart.items()
            }
        return self._whole

    @state.setter
    @torch.inference_mode(False)
    def state(self, state: State) -> None:
        self._gathered = np.ones(self.num_envs, dtype=bool)
        self._whole = None
        self._state, self._apart = state, {name: tensor.clone() for name, tensor in state.items()}

    def _rows(self, chosen: NDArray[np.bool_]) -> Tensor:
        return torch.as_tensor(np.flatnonzero(chosen), device=self.policy.device)

    def _gather_state(self) -> None:
        """Let `_state` be that of the active environments."""
        if np.array_equal(self.active, self._gathered):
            return
        old, new = self._rows(self._gathered), self._rows(self.active)
        for name, rest in self._apart.items():
            rest[old] = self._state[name]
        self._gathered = self.active.copy()
        self._state = {name: rest[new] for name, rest in self._apart.items()}

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Values (N, ...) by vectorised environment; views of them."""
        return np.split(values, self._borders[1:-1])

    def play(self) -> Iterator[Step]:
        """Steps until nobody is active."""
        while self.active.any():
            self.act()
            yield self.collect()

    @torch.inference_mode(False)
    @torch.no_grad()
    def act(self, forced: NDArray[np.int64] | None = None) -> None:
        """Choose actions for the active environments and start a step.

        Args:
            forced: actions (N,) to take instead of the policy's; negative ones leave it to the policy.
        """
        self._actions = np.full(self.num_envs, NO_OP)
        if not self.active.any():
            return
        self._gather_state()
        rgb, reward, starts = (
            torch.as_tensor(values, device=self.policy.device).unsqueeze(0)
            for values in (self._seen("rgb"), self._seen("reward"), self.starts[self.active])
        )
        with stage("acting"):
            output = self._run_policy(rgb, reward, self._state, starts)
        self._state, self._whole = output.state, None
        chosen = self._choose(output.logits[0])
        if forced is not None:
            chosen = np.where(forced[self.active] < 0, chosen, forced[self.active])
        self._actions[self.active] = chosen
        parts = zip(self.envs, self.split(self.active), self.split(self._actions), strict=True)
        for env, active, actions in parts:
            if active.any():
                env.step_async(actions)

    def _run_policy(self, rgb: Tensor, reward: Tensor, state: State, starts: Tensor) -> PolicyOutput:
        """One step (1, n, ...) of the active environments."""
        output: PolicyOutput = self.policy(rgb, reward, state, starts)
        return output

    def _seen(self, key: str) -> NDArray[Any]:
        """One part of the observations of the active environments."""
        parts = zip(self._observations, self.split(self.active), strict=True)
        return np.concatenate([observation[key][active] for observation, active in parts])

    def _choose(self, logits: Tensor) -> NDArray[np.int64]:
        counts = [int(active.sum()) for active in self.split(self.active)]
        parts = zip(self._choosers, logits.split(counts), strict=True)
        return np.concatenate([choose(part).cpu().numpy() for choose, part in parts if len(part)])

    def collect(self) -> Step:
        """Finish the step that `act` started."""
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        ended = np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = []
        parts = zip(self.envs, self.split(self.active), self.split(rewards), self.split(ended), strict=True)
        for number, (env, active, env_rewards, env_ended) in enumerate(parts):
            if not active.any():
                infos += [{} for _ in active]
                continue
            before = self._observations[number]["reward"]
            seen: Any
            with stage("environment"):
                seen, gained, dones, found = env.step_wait()
            reward = np.where(active.reshape(-1, *[1] * (before.ndim - 1)), seen["reward"], before)
            self._observations[number] = {**seen, "reward": reward}
            env_rewards[:] = gained * active
            env_ended[:] = dones & active
            infos += found
        self.starts = np.where(self.active, ended, self.starts)
        return Step(self._actions, rewards, ended, infos)


def _entropy(seed: int, game: str, levels: Levels) -> np.random.SeedSequence:
    """What is drawn for a game follows from its name, so that it does not depend on which other games there are."""
    return np.random.SeedSequence([seed, int.from_bytes(game.encode(), "little"), levels.start, levels.count])


def action_seed(seed: int, game: str, levels: Levels) -> int:
    """Seed of the actions drawn in one game on one split: independent of what else is played."""
    return int(_entropy(seed, game, levels).generate_state(1, np.uint64)[0]) >> 1


def level_order(game: str, mode: str, levels: Levels, seed: int, level: int | None = None) -> Iterator[int]:
    """Which level each episode of one game plays, without end.

    Args:
        game: its name.
        mode: of the game; exploration mode has one level.
        levels: from which they are drawn, with replacement.
        seed: of the draws.
        level: the only one, instead of drawing.
    """
    generator = np.random.default_rng(_entropy(seed, game, levels))
    only = EXPLORATION_LEVELS[game] if mode == "exploration" else level
    end = levels.start + levels.count if levels.count else MAX_LEVEL + 1
    while True:
        yield int(generator.integers(levels.start, end)) if only is None else only


def native_mode(mode: str) -> str:
    """The mode in which levels can be chosen: exploration mode is hard mode on fixed levels, and lets nobody choose."""
    return "hard" if mode == "exploration" else mode
