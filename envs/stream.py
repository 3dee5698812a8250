"""Streams of games: each environment plays one game for a while, then another, and no observation says so."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
from envs.native import NUM_ACTIONS
from envs.states import State, check_state, join_states, split_states
from envs.vec_env import Indices, Observation, ProcgenVecEnv, concatenate, observation_space

_STATE_VERSION = 1
_COUNTERS = ("switched", "task_indices", "episodes_in_task")
_STATE_KEYS = {*_COUNTERS, "seed", "pending_seed", "reward_observation"}


@dataclass(frozen=True)
class TaskDuration:
    """How long a task lasts before the next game: drawn evenly from `low` to `high`, counted in `unit`.

    Attributes:
        low: The least number, 1 or more.
        high: The largest number; `low` for a fixed duration.
        unit: "episodes", or "steps", which cut the episode that is being played.
    """

    low: int
    high: int
    unit: str = "episodes"

    def __str__(self) -> str:
        return f"{self.low if self.low == self.high else f'{self.low}:{self.high}'} {self.unit}"


def parse_task_duration(text: str) -> TaskDuration:
    """A task duration by its text: "4 episodes", "2:6 episodes" (drawn from 2 to 6), "500 steps", "300:700 steps".

    Raises:
        UserError: The text is not a task duration.
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
    """`num_envs` environments that play one of `games` at a time and switch to another one now and then.

    The time that an environment spends with one game is a task. Every environment plays all games in a random order,
    then in another one, never the same game twice in a row. A game that comes back goes on with a new episode.

    Observations, actions, rewards and infos are those of `ProcgenVecEnv`, and the observations do not say that the
    game has changed. At the end of an episode, which may also be the end of a task, "game" in its info is the game that
    was played. A task of a number of steps ends in the middle of an episode: this is not a "done", the next image is
    simply one of another game, and the episode that was cut is never reported.

    For those who keep account of games, not for policies: wherever an environment goes on with another game, also in
    the middle of an episode, its info has "next_game", the game that the returned observation is of.
    ``get_attr("game")`` gives the present games at any time.

    Args:
        games: Two or more names of games or task sets.
        num_envs: The number of environments.
        task_duration: How long an environment plays one game, as for `parse_task_duration`.
        mode: A mode that all games have, as for `ProcgenVecEnv`.
        levels: The levels to play, as for `ProcgenVecEnv`.
        twist: What is withheld or asked, as for `ProcgenVecEnv`.
        seed: The seed of levels, orders and durations. The same seed and actions give the same steps, and what one
            environment plays does not depend on the others.

    Attributes:
        switched: (B,) whether the latest observation is the first of a task with another game than before.
        task_indices: (B,) the number of tasks that have ended.
        episodes_in_task: (B,) the number of episodes of the present task that have ended.

    Raises:
        UserError: naming everything that is wrong with the arguments.
    """

    def __init__(
        self,
        games: str | Sequence[str],
        num_envs: int = 16,
        task_duration: str | TaskDuration = "4 episodes",
        mode: str = "easy",
        levels: str = "train",
        seed: int = 0,
        twist: str | None = None,
    ) -> None:
        self.games = expand_games(games)
        # Each environment has a native instance for each game, which stands still while another game is played.
        problems = environment_problems(self.games, max(1, len(self.games)), mode, levels, seed, twist=twist)
        if num_envs < 1:
            problems.append(f"{num_envs} environments: give 1 or more")
        if len(set(self.games)) == 1:
            problems.append(
                f"a stream of {self.games[0]} alone has nothing to switch to: name two games or more"
            )
        raise_problems(problems)
        self.task_duration = (
            parse_task_duration(task_duration) if isinstance(task_duration, str) else task_duration
        )
        self.mode, self.levels, self.current_seed = mode, parse_levels(levels, mode), seed
        self.render_mode, self.twist = None, twist
        super().__init__(num_envs, observation_space(), spaces.Discrete(NUM_ACTIONS))
        self.switched = np.zeros(num_envs, dtype=bool)
        self.task_indices = np.zeros(num_envs, dtype=np.int64)
        self.episodes_in_task = np.zeros(num_envs, dtype=np.int64)
        self._reward_observation = np.zeros((num_envs, 1), dtype=np.float32)
        self._streams = self._make_streams()
        self._stepping = False

    def _make_streams(self) -> list[_Stream]:
        return [
            _Stream(
                self.games,
                self.task_duration,
                self.mode,
                self.levels.name,
                (self.current_seed, env),
                self.twist,
            )
            for env in range(self.num_envs)
        ]

    @property
    def current_games(self) -> list[str]:
        """The game that each environment plays now."""
        return [stream.game for stream in self._streams]

    @property
    def current_levels(self) -> list[int]:
        """The level seed that each environment plays now."""
        return [stream.procgen.current_levels[0] for stream in self._streams]

    def reset(self) -> Observation:
        """Start a new task and episode everywhere; after `seed(n)`, the orders of games too begin anew."""
        seed = self._seeds[0]
        if seed is not None:
            self.current_seed = seed
            self.close()
            self._streams = self._make_streams()
        self._reset_seeds()
        self._stepping = False
        for name in _COUNTERS:
            getattr(self, name)[:] = 0
        observation = concatenate([stream.begin_task() for stream in self._streams])
        self._reward_observation = observation["reward"].copy()
        self.reset_infos = [{"game": stream.game} for stream in self._streams]
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step with actions (B,)."""
        for stream, action in zip(self._streams, np.asarray(actions), strict=True):
            stream.procgen.step_async(np.array([action]))
        self._stepping = True

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Finish the step: observation, rewards (B,), dones (B,), infos."""
        if not self._stepping:
            raise RuntimeError("step_wait without a step: call step_async() first")
        self._stepping = False
        observations, infos = [], []
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        for env, stream in enumerate(self._streams):
            observation, reward, done, (info,) = stream.procgen.step_wait()
            rewards[env], dones[env] = reward[0], done[0]
            self.episodes_in_task[env] += dones[env]
            self.switched[env] = stream.ends_task(bool(dones[env]))
            if self.switched[env]:
                # The reward input is the last step's, as at every end of an episode.
                observation = {**stream.start_next(), "reward": observation["reward"]}
                info["next_game"] = stream.game
                if dones[env]:
                    info["level_seed"] = stream.procgen.current_levels[0]
                self.task_indices[env] += 1
                self.episodes_in_task[env] = 0
            observations.append(observation)
            infos.append(info)
        together = concatenate(observations)
        self._reward_observation = together["reward"].copy()
        return together, rewards, dones, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Start everything anew from `seed` (None: a random one) at the next `reset`."""
        if seed is None:
            seed = int(np.random.default_rng().integers(MAX_SEED))
        self._seeds = [seed % MAX_SEED] * self.num_envs
        return self._seeds

    def _identity(self) -> State:
        """What a state and the environment that continues from it must have in common."""
        return {
            "version": _STATE_VERSION,
            "games": ",".join(self.games),
            "mode": self.mode,
            "levels": self.levels.name,
            "task_duration": str(self.task_duration),
            "num_envs": self.num_envs,
            "twist": self.twist,
        }

    def get_state(self) -> State:
        """Everything needed to continue exactly, as a flat dict of arrays, integers and text.

        20 to 30 kB for each environment and game: the games that wait for their turn are part of it.
        """
        self._require_idle("get_state")
        pending = self._seeds[0]
        return {
            **{name: value for name, value in self._identity().items() if value is not None},
            **{name: getattr(self, name).copy() for name in _COUNTERS},
            "seed": self.current_seed,
            "pending_seed": -1 if pending is None else pending,
            "reward_observation": self._reward_observation.copy(),
            **join_states([stream.get_state() for stream in self._streams]),
        }

    def set_state(self, state: State) -> Observation:
        """Continue from `state`, of this or another instance or process; returns the observation.

        Raises:
            UserError: The state is damaged, or of other games, modes, levels, durations or numbers of environments.
        """
        self._require_idle("set_state")
        check_state(state, _STATE_KEYS, self._identity())
        for stream, part in zip(
            self._streams, split_states(state, self.num_envs, "environments"), strict=True
        ):
            stream.set_state(part)
        self.current_seed = int(state["seed"])
        pending = int(state["pending_seed"])
        self._seeds = [None if pending < 0 else pending] * self.num_envs
        for name in _COUNTERS:
            getattr(self, name)[:] = state[name]
        self._reward_observation = np.array(state["reward_observation"], dtype=np.float32)
        observation = concatenate([stream.procgen.observe() for stream in self._streams])
        return {**observation, "reward": self._reward_observation.copy()}

    def _require_idle(self, what: str) -> None:
        if self._stepping:
            raise RuntimeError(f"{what} in the middle of a step: call step_wait() first")

    def close(self) -> None:
        """Free the native instances. May be called twice."""
        for stream in self._streams:
            stream.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute for each environment: "game", the present one, or an attribute of them all together."""
        envs = list(self._get_indices(indices))
        if attr_name == "game":
            return [self._streams[env].game for env in envs]
        value = getattr(self, attr_name)
        return [value for _ in envs]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        raise AttributeError(f"attribute {attr_name!r} of StreamVecEnv cannot be changed")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        raise AttributeError(f"environments of StreamVecEnv have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """True for `Monitor` alone: episodes are reported in its form, though no wrapper does it."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class _Stream:
    """What one environment plays: its games, their order, and how much of the present task is left."""

    def __init__(
        self,
        games: Sequence[str],
        task_duration: TaskDuration,
        mode: str,
        levels: str,
        entropy: tuple[int, int],
        twist: str | None,
    ) -> None:
        seeds = np.random.SeedSequence(entropy)
        self._random = np.random.default_rng(seeds.spawn(1)[0])
        draws = np.random.default_rng(seeds).integers(MAX_SEED, size=len(games))
        self._procgens = [
            ProcgenVecEnv([game], 1, mode, levels, int(draw), num_threads=0, twist=twist)
            for game, draw in zip(games, draws, strict=True)
        ]
        self._duration = task_duration
        self._order: list[int] = []
        self._present = -1
        self._left = 0
        self._advance()

    @property
    def procgen(self) -> ProcgenVecEnv:
        """The environment of the game that is played now."""
        return self._procgens[self._present]

    @property
    def game(self) -> str:
        """The game that is played now."""
        return self.procgen.games[0]

    def _advance(self) -> None:
        """Choose the next game."""
        if not self._order:
            order = list(self._random.permutation(len(self._procgens)))
            if order[0] == self._present:
                order.append(order.pop(0))
            self._order = order
        self._present = int(self._order.pop(0))

    def begin_task(self) -> Observation:
        """Begin a task with a new episode of the present game."""
        self._left = int(self._random.integers(self._duration.low, self._duration.high + 1))
        return self.procgen.reset()

    def ends_task(self, done: bool) -> bool:
        """Count a step; whether it was the task's last."""
        self._left -= done if self._duration.unit == "episodes" else 1
        return self._left <= 0

    def start_next(self) -> Observation:
        """Begin a task with the next game."""
        self._advance()
        return self.begin_task()

    def get_state(self) -> State:
        """As `StreamVecEnv.get_state`, of this one alone."""
        return {
            "random": json.dumps(self._random.bit_generator.state),
            "order": np.array(self._order, dtype=np.int64),
            "present": self._present,
            "left": self._left,
            **join_states([procgen.get_state() for procgen in self._procgens]),
        }

    def set_state(self, state: State) -> None:
        """Take up a state that `get_state` returned."""
        check_state(state, ("random", "order", "present", "left"), {})
        for procgen, part in zip(
            self._procgens, split_states(state, len(self._procgens), "games"), strict=True
        ):
            procgen.set_state(part)
        self._random.bit_generator.state = json.loads(state["random"])
        self._order = [int(game) for game in state["order"]]
        self._present, self._left = int(state["present"]), int(state["left"])

    def close(self) -> None:
        """Free the native instances."""
        for procgen in self._procgens:
            procgen.close()
