"""A stream of games: each slot plays one game for a while, then another, and nothing says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from common.errors import UserError, raise_problems
from envs.checks import MAX_SEED, environment_problems
from envs.games import expand_games
from envs.levels import parse_levels
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from envs.vec_env import Indices, Observation, ProcgenVecEnv

DEFAULT_STREAMS = 16


@dataclass(frozen=True)
class TaskDuration:
    """How long a stream stays with one game: a number from `low` to `high`, drawn evenly, in `unit`.

    Attributes:
        low: at least 1.
        high: at least `low`; the same for a set time.
        unit: "episodes", or "steps", which cuts the episode that is being played.
    """

    low: int
    high: int
    unit: str = "episodes"

    def __str__(self) -> str:
        return f"{self.low if self.low == self.high else f'{self.low}:{self.high}'} {self.unit}"


def parse_task_duration(text: str) -> TaskDuration:
    """A stay by its text: "4 episodes", "2:6 episodes" (drawn from 2 to 6), "500 steps", "300:700 steps".

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+)(?::(\d+))?(?:\s+(episodes?|steps?))?\s*", text)
    if match is None:
        raise UserError(
            f"unknown task duration {text!r}: give for example '4 episodes', '2:6 episodes' or '500 steps'"
        )
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high:
        raise UserError(f"task duration {text!r}: the numbers must be at least 1, the smaller one first")
    return TaskDuration(low, high, "steps" if (match[3] or "").startswith("step") else "episodes")


class StreamVecEnv(VecEnv):
    """`num_envs` streams, each of which plays one of `games` at a time and switches to another one now and then.

    Observations, actions, rewards and `infos` are those of `ProcgenVecEnv`. A switch at the end of an episode looks
    like the end of any episode. A switch in the middle of one, which only stays in steps make, is not even a "done":
    the next image is simply one of another game, and the episode that was cut is never reported. Nothing but
    `switched` tells an evaluation where the switches are.

    Each stream plays all games in a random order, then in another one, never the same game twice in a row. A game
    that comes back goes on with a new episode.

    Args:
        games: two or more names of games or task sets.
        num_envs: number of streams; default 16.
        task_duration: how long a stream stays with a game, as for `parse_task_duration`.
        mode: as for `ProcgenVecEnv`; all games must have it.
        levels: as for `ProcgenVecEnv`.
        seed: of levels, orders and stays. The same seed and actions give the same streams, and what a stream plays does
            not depend on the others.

    Attributes:
        switched: (N,) whether the latest observation is the first of a stay with another game than before.
        stays: (N,) how many stays of each stream have ended.
        episodes_in_task: (N,) episodes of the present stay that have ended.

    Raises:
        UserError: naming everything that is wrong with the arguments.
    """

    def __init__(
        self,
        games: str | Sequence[str],
        num_envs: int = DEFAULT_STREAMS,
        task_duration: str | TaskDuration = "4 episodes",
        mode: str = "easy",
        levels: str = "train",
        seed: int = 0,
    ) -> None:
        self.games = expand_games(games)
        # Each stream plays each game in an instance of its own, which stands still while another one is played.
        problems = environment_problems(self.games, max(1, len(self.games)), mode, levels, seed)
        if num_envs < 1:
            problems.append(f"{num_envs} streams: give 1 or more")
        if len(set(self.games)) == 1:
            problems.append(
                f"a stream of {self.games[0]} alone has nothing to switch to: name two games or more"
            )
        raise_problems(problems)
        self.task_duration = (
            parse_task_duration(task_duration) if isinstance(task_duration, str) else task_duration
        )
        self.mode, self.levels, self.current_seed = mode, parse_levels(levels, mode), seed
        self.render_mode = None
        super().__init__(
            num_envs,
            spaces.Dict(
                rgb=spaces.Box(0, 255, IMAGE_SHAPE, np.uint8),
                reward=spaces.Box(-1.0, 1.0, (1,), np.float32),
            ),
            spaces.Discrete(NUM_ACTIONS),
        )
        self.switched = np.zeros(num_envs, dtype=bool)
        self.task_indices = np.zeros(num_envs, dtype=np.int64)
        self.episodes_in_task = np.zeros(num_envs, dtype=np.int64)
        self._streams = [self._make_stream(slot) for slot in range(num_envs)]
        self._actions: NDArray[np.int64] | None = None

    def _make_stream(self, slot: int) -> _Stream:
        return _Stream(self.games, self.task_duration, self.mode, self.levels.name, (self.current_seed, slot))

    @property
    def current_games(self) -> list[str]:
        """The game that each stream plays now."""
        return [stream.game for stream in self._streams]

    def reset(self) -> Observation:
        """Start a new stay and a new episode in all streams; after `seed(n)`, the whole streams from that seed."""
        seed = self._seeds[0]
        if seed is not None:
            self.current_seed = seed
            self.close()
            self._streams = [self._make_stream(slot) for slot in range(self.num_envs)]
        self._reset_seeds()
        self._actions = None
        for counter in (self.switched, self.task_indices, self.episodes_in_task):
            counter[:] = 0
        observations = [stream.begin_task() for stream in self._streams]
        self.reset_infos = [{"game": stream.game} for stream in self._streams]
        return _together(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step with actions (N,)."""
        self._actions = np.asarray(actions)
        for stream, action in zip(self._streams, self._actions, strict=True):
            stream.env.step_async(np.array([action]))

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Finish the step: observation, rewards (N,), dones (N,), infos."""
        if self._actions is None:
            raise RuntimeError("step_wait without a step: call step_async() first")
        self._actions = None
        observations, infos = [], []
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        for slot, stream in enumerate(self._streams):
            observation, reward, done, (info,) = stream.env.step_wait()
            rewards[slot], dones[slot] = reward[0], done[0]
            self.episodes_in_task[slot] += dones[slot]
            self.switched[slot] = stream.passes(bool(dones[slot]))
            if self.switched[slot]:
                # The reward input is the last step's, as at every end of an episode.
                observation = {**stream.start_next(), "reward": observation["reward"]}
                self.task_indices[slot] += 1
                self.episodes_in_task[slot] = 0
            observations.append(observation)
            infos.append(info)
        return _together(observations), rewards, dones, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Start the streams anew from `seed` (None: a random one) at the next `reset`."""
        if seed is None:
            seed = int(np.random.default_rng().integers(MAX_SEED))
        self._seeds = [seed % MAX_SEED] * self.num_envs
        return self._seeds

    def close(self) -> None:
        """Free the native instances. May be called twice."""
        for stream in self._streams:
            stream.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute for each stream: "game", or one of the whole environment."""
        slots = list(self._get_indices(indices))
        if attr_name == "game":
            return [self._streams[slot].game for slot in slots]
        value = getattr(self, attr_name)
        return [value for _ in slots]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        raise AttributeError(f"attribute {attr_name!r} of StreamVecEnv cannot be changed")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        raise AttributeError(f"streams have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """True for `Monitor` alone: episodes are reported in its form, though no wrapper does it."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class _Stream:
    """One stream: its games, their order, and how long it stays."""

    def __init__(
        self,
        games: Sequence[str],
        task_duration: TaskDuration,
        mode: str,
        levels: str,
        entropy: tuple[int, int],
    ) -> None:
        seeds = np.random.SeedSequence(entropy)
        self._random = np.random.default_rng(seeds.spawn(1)[0])
        draws = np.random.default_rng(seeds).integers(MAX_SEED, size=len(games))
        self._envs = [
            ProcgenVecEnv([game], 1, mode, levels, int(draw), num_threads=0)
            for game, draw in zip(games, draws, strict=True)
        ]
        self._duration = task_duration
        self._order: list[int] = []
        self._present = -1
        self._left = 0
        self._advance()

    @property
    def env(self) -> ProcgenVecEnv:
        """Of the game that is played now."""
        return self._envs[self._present]

    @property
    def game(self) -> str:
        """The game that is played now."""
        return self.env.games[0]

    def _advance(self) -> None:
        """On to the next game."""
        if not self._order:
            order = list(self._random.permutation(len(self._envs)))
            if order[0] == self._present:
                order.append(order.pop(0))
            self._order = order
        self._present = int(self._order.pop(0))

    def begin_task(self) -> Observation:
        """A new stay, with a new episode of the present game."""
        self._left = int(self._random.integers(self._duration.low, self._duration.high + 1))
        return self.env.reset()

    def passes(self, done: bool) -> bool:
        """Count a step; whether the stay is over."""
        self._left -= done if self._duration.unit == "episodes" else 1
        return self._left <= 0

    def start_next(self) -> Observation:
        """A new stay with the next game."""
        self._advance()
        return self.begin_task()

    def close(self) -> None:
        """Free its instances."""
        for env in self._envs:
            env.close()


def _together(observations: Iterable[Observation]) -> Observation:
    """Observations of single slots as one of all slots."""
    seen = list(observations)
    return {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
