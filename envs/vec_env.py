"""Many games in one native ProcGen instance, as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from common.errors import UserError, raise_problems
from envs.checks import (
    MAX_SEED,
    default_num_envs,
    environment_problems,
    level_seed_problems,
    part_problems,
)
from envs.games import EXPLORATION_LEVELS, GAMES, expand_games
from envs.levels import Levels, parse_levels
from envs.native import FRAMES_PER_SECOND, IMAGE_SHAPE, NUM_ACTIONS, NativeEnv, level_state
from envs.states import State, check_state
from envs.twists import parse_twist

Observation = dict[str, NDArray[Any]]
Indices = None | int | Iterable[int]

_STATE_VERSION = 1
_STATE_KEYS = {
    *("native", "native_sizes", "native_checksum", "seed", "pending_seed", "unplayed"),
    *("fixed_levels", "episode_returns", "episode_lengths", "reward_observation"),
}
_DRAWN = -1  # in `_fixed_levels`: this environment draws its levels from the split


def observation_space() -> spaces.Dict:
    """What one environment shows of ProcGen: the image, and the previous reward clipped to [-1, 1]."""
    return spaces.Dict(
        rgb=spaces.Box(0, 255, IMAGE_SHAPE, np.uint8), reward=spaces.Box(-1.0, 1.0, (1,), np.float32)
    )


def concatenate(observations: Sequence[Observation]) -> Observation:
    """Observations of some environments each as one observation of all of them."""
    return {key: np.concatenate([one[key] for one in observations]) for key in observations[0]}


def _checksum(blob: bytes, sizes: NDArray[np.int64]) -> int:
    return zlib.crc32(blob, zlib.crc32(sizes.tobytes()))


class ProcgenVecEnv(VecEnv):
    """`num_envs` environments over one native instance; environment i plays `games[i % len(games)]`.

    Observation: {"rgb": uint8 (B, 64, 64, 3), "reward": float32 (B, 1)}. "reward" is the reward of the
    previous step clipped to [-1, 1], also across the end of an episode (as published); it is 0 after `reset`.
    Actions: B integers below 15. Rewards are raw, float32 (B,). Returned arrays are never written again.

    Episodes restart by themselves within the step that ends them: the observation is then the first of the
    next episode, and the last frame of the old one is never seen (so infos hold no "terminal_observation").
    Infos are empty but where an episode ended: {"episode": {"r", "l", "t"}, "game", "normalized_return",
    "level_seed" (now starting), "prev_level_seed" and "prev_level_complete" (just ended),
    "TimeLimit.truncated"}. The library does not say why an episode ended: one that reaches the step limit of
    its game without completing the level counts as truncated.

    Args:
        games: names of games or task sets ("easy6", "memory4", "all16"), as a list or separated by commas.
        num_envs: number of environments, a multiple of the number of games; default: 64, rounded up to one.
        mode: easy, hard, extreme, memory or exploration. Exploration mode is hard mode on one level for each
            game, chosen by ProcGen: it overrides `levels`.
        levels: train, test1, test2, test3, all, "A:B" (levels A to B-1), or a `Levels`. Every episode draws
            one, with replacement.
        seed: of the draws. The same seed and actions give the same episodes whatever `num_threads` is.
        render_mode: "rgb_array" for 512 x 512 frames from `render` and `get_images`; about 100 times slower.
        num_threads: native threads; 0 steps in the calling thread.
        level_seeds: one fixed level for each environment, played again and again, instead of draws.
        part: (index, count): hold only one of `count` equal parts of the `num_envs` environments, those from
            index * num_envs / count on. Each plays what it would play in the whole.
        twist: what is withheld from agents or asked of them, as `envs.twists.parse_twist` reads it; None for nothing.
            `render` and `get_images` show the games as they are.

    Raises:
        UserError: naming everything that is wrong with the arguments, before the native library is touched.
    """

    def __init__(
        self,
        games: str | Sequence[str],
        num_envs: int | None = None,
        mode: str = "easy",
        levels: str | Levels = "train",
        seed: int = 0,
        render_mode: str | None = None,
        num_threads: int = 4,
        level_seeds: Sequence[int] | None = None,
        part: tuple[int, int] = (0, 1),
        twist: str | None = None,
    ) -> None:
        self.games = expand_games(games)
        if num_envs is None:
            num_envs = default_num_envs(len(self.games), level_seeds)
        raise_problems(
            [
                *environment_problems(
                    self.games, num_envs, mode, levels, seed, render_mode, num_threads, level_seeds, twist
                ),
                *part_problems(num_envs, part),
            ]
        )
        whole, num_envs = num_envs, num_envs // part[1]
        self._own = slice(part[0] * num_envs, (part[0] + 1) * num_envs)
        self._whole = whole
        self.mode = mode
        self.twist = twist
        self._twist = None if twist is None else parse_twist(twist)
        self._twist_rewards = np.zeros(num_envs, np.float32)
        self.levels = parse_levels(levels, mode) if isinstance(levels, str) else levels
        self.current_seed = seed
        self.num_threads = num_threads
        self.render_mode = render_mode
        self.game_of_env: NDArray[np.int64] = np.arange(whole)[self._own] % len(self.games)
        self._env_values: dict[str, dict[int, Any]] = {}
        super().__init__(
            num_envs,
            observation_space(),
            spaces.Discrete(NUM_ACTIONS),
        )
        self.metadata: dict[str, Any] = {**self.metadata, "render_fps": FRAMES_PER_SECOND}

        facts = [GAMES[self.games[index]] for index in self.game_of_env]
        ranges = [game.score_range(mode) for game in facts]
        self._time_limit = np.array([game.limit(mode) for game in facts])
        self._score_low = np.array([bounds.low for bounds in ranges])
        self._score_span = np.array([bounds.high - bounds.low for bounds in ranges])

        self._fixed_levels = np.full(num_envs, _DRAWN, dtype=np.int64)
        if mode == "exploration":
            self._fixed_levels[:] = [EXPLORATION_LEVELS[game.name] for game in facts]
        elif level_seeds is not None:
            self._fixed_levels[:] = level_seeds[self._own]
        self._episode_returns = np.zeros(num_envs)
        self._episode_lengths = np.zeros(num_envs, dtype=np.int64)
        self._reward_observation = np.zeros((num_envs, 1), dtype=np.float32)
        self._stepping = False
        self._unplayed = True  # every environment is at the first frame of an episode that nobody has seen
        self._start_time = time.time()
        self._native = self._create_native(seed)

    # Native instance

    @property
    def _native_mode(self) -> str:
        return "hard" if self.mode == "exploration" else self.mode

    def _create_native(self, seed: int) -> NativeEnv:
        native = NativeEnv(
            self.games if self.num_envs == self._whole else [self.games[game] for game in self.game_of_env],
            self.num_envs,
            self._native_mode,
            self.levels,
            seed,
            self.num_threads,
            render=self.render_mode == "rgb_array",
        )
        if self.num_envs < self._whole:
            self._take_part(native, seed)
        for env in np.flatnonzero(self._fixed_levels != _DRAWN):
            self._fix_level(native, int(env))
        return native

    def _take_part(self, native: NativeEnv, seed: int) -> None:
        """Put the environments where those of the whole begin: what each draws follows from its number there."""
        whole = NativeEnv(self.games, self._whole, self._native_mode, self.levels, seed, num_threads=0)
        try:
            for env, state in enumerate(whole.get_states()[self._own]):
                native.set_state(env, state)
        finally:
            whole.close()

    def _fix_level(self, native: NativeEnv, env: int) -> None:
        game = self.games[self.game_of_env[env]]
        native.set_state(env, level_state(game, self._native_mode, int(self._fixed_levels[env])))

    def _require_idle(self, what: str) -> None:
        if self._stepping:
            raise RuntimeError(f"{what} in the middle of a step: call step_wait() first")

    # Episodes

    def reset(self) -> Observation:
        """Start a new episode in every environment, also in the middle of one, and drop a step still in progress.

        After `seed(n)` the draws of levels start again from that seed. Facts about the new levels are in
        `reset_infos`.
        """
        seed = self._seeds[0]
        if seed is not None:
            self.current_seed = seed
            self._native.close()
            self._native = self._create_native(seed)
        elif not self._unplayed:
            self._native.end_episodes()
        self._reset_seeds()
        self._stepping = False
        self._unplayed = False
        self._episode_returns[:] = 0
        self._episode_lengths[:] = 0
        self._reward_observation = np.zeros_like(self._reward_observation)
        observation = self.observe()
        self.reset_infos = [
            {"game": self.games[game], "level_seed": level}
            for game, level in zip(self.game_of_env, self.current_levels, strict=True)
        ]
        return observation

    def observe(self) -> Observation:
        """The current observation of all environments again, without a step."""
        self._require_idle("observe")
        _, rgb, _ = self._native.observe()
        return self._shown(rgb)

    def _shown(self, rgb: NDArray[np.uint8]) -> Observation:
        """The observation, of the images that the games drew; a twist changes them in place."""
        if self._twist is not None:
            self._twist.show(rgb, self._episode_lengths, self._levels())
        return {"rgb": rgb, "reward": self._reward_observation.copy()}

    @property
    def current_levels(self) -> list[int]:
        """The level seed that each environment plays now."""
        self._require_idle("current_levels")
        return [int(level) for level in self._native.level_seed]

    def _levels(self) -> NDArray[np.int64]:
        """The same (B,), as of the last observation."""
        return np.array(self._native.level_seed, dtype=np.int64)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step with actions (B,) and return at once; `step_wait` collects it."""
        self._require_idle("step_async")
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise UserError(
                f"actions must be {self.num_envs} integers, not {actions.dtype} of shape {actions.shape}"
            )
        if actions.min() < 0 or actions.max() >= NUM_ACTIONS:
            raise UserError(
                f"actions must be from 0 to {NUM_ACTIONS - 1}, not {actions.min()} to {actions.max()}"
            )
        if self._twist is not None:
            self._twist_rewards = self._twist.rewards(actions, self._episode_lengths, self._levels())
        self._native.act(actions.astype(np.int32))
        self._stepping = True
        self._unplayed = False

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Wait for the step: observation, rewards (B,), dones (B,), infos (see the class)."""
        if not self._stepping:
            raise RuntimeError("step_wait without a step: call step_async() first")
        rewards, rgb, dones = self._native.observe()
        if self._twist is not None:
            rewards = rewards + self._twist_rewards
        self._stepping = False
        self._episode_returns += rewards
        self._episode_lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        if len(ended):
            self._describe_ended(ended, infos)
            self._episode_returns[ended] = 0
            self._episode_lengths[ended] = 0
        self._reward_observation = np.clip(rewards, -1, 1)[:, None]
        return self._shown(rgb), rewards, dones, infos

    def _describe_ended(self, ended: NDArray[np.intp], infos: list[dict[str, Any]]) -> None:
        elapsed = round(time.time() - self._start_time, 6)
        returns = self._episode_returns[ended]
        lengths = self._episode_lengths[ended]
        normalized = (returns - self._score_low[ended]) / self._score_span[ended]
        complete = self._native.prev_level_complete[ended].astype(bool)
        truncated = (lengths >= self._time_limit[ended]) & ~complete
        for i, env in enumerate(ended):
            infos[env] = {
                "episode": {"r": float(returns[i]), "l": int(lengths[i]), "t": elapsed},
                "game": self.games[self.game_of_env[env]],
                "normalized_return": float(normalized[i]),
                "level_seed": int(self._native.level_seed[env]),
                "prev_level_seed": int(self._native.prev_level_seed[env]),
                "prev_level_complete": bool(complete[i]),
                "TimeLimit.truncated": bool(truncated[i]),
            }

    def play_levels(self, indices: Sequence[int], level_seeds: Sequence[int]) -> Observation:
        """Put the environments `indices` at the first frames of `level_seeds`, played from now on.

        Returns the observation of all environments.

        Statistics and the reward observation of these environments start again; the others are not touched. The
        levels stay fixed through `reset` and `seed`.
        Raises `UserError` for environments or levels that do not exist, and in exploration mode.
        """
        self._require_idle("play_levels")
        chosen = [int(env) for env in indices]
        problems = level_seed_problems(level_seeds)
        if len(chosen) != len(level_seeds):
            problems.append(
                f"{len(level_seeds)} level seeds for {len(chosen)} environments: give one for each"
            )
        if len(set(chosen)) != len(chosen):
            problems.append("an environment is listed twice: it can play one level at a time")
        bad = [env for env in chosen if not 0 <= env < self.num_envs]
        if bad:
            problems.append(f"environments {bad} do not exist: use 0 to {self.num_envs - 1}")
        if self.mode == "exploration":
            problems.append(
                "exploration mode plays one level chosen by the game: use mode hard to choose levels"
            )
        raise_problems(problems)
        if chosen:
            self._fixed_levels[chosen] = level_seeds
            self._episode_returns[chosen] = 0
            self._episode_lengths[chosen] = 0
            self._reward_observation[chosen] = 0
            for env in chosen:
                self._fix_level(self._native, env)
        return self.observe()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw levels from `seed` (None: a random one) from the next `reset` on.

        One generator serves all environments; the list returned repeats the seed for each of them.
        """
        if seed is None:
            seed = int(np.random.default_rng().integers(MAX_SEED))
        self._seeds = [seed % MAX_SEED] * self.num_envs
        return self._seeds

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """There are no reset options: raises `UserError` unless `options` is empty."""
        if any(options if isinstance(options, list) else [options]):
            raise UserError(
                "ProcgenVecEnv has no reset options: use play_levels(indices, level_seeds) to choose levels"
            )

    # State

    def _identity(self) -> State:
        """What a state and the environment that continues from it must have in common."""
        return {
            "version": _STATE_VERSION,
            "games": ",".join(self.games),
            "mode": self.mode,
            "levels_start": self.levels.start,
            "levels_count": self.levels.count,
            "twist": self.twist,
        }

    def get_state(self) -> State:
        """Everything needed to continue exactly, as a flat dict of arrays, integers and text.

        Episodes, level generators, statistics and the reward observation; 20 to 30 kB for each environment. Not
        included: `info["episode"]["t"]`, which is wall-clock time, and values set by `set_attr`.
        """
        self._require_idle("get_state")
        states = self._native.get_states()
        blob = b"".join(states)
        sizes = np.array([len(state) for state in states], dtype=np.int64)
        pending = self._seeds[0]
        return {
            **{name: value for name, value in self._identity().items() if value is not None},
            "seed": self.current_seed,
            "pending_seed": -1 if pending is None else pending,
            "unplayed": int(self._unplayed),
            "native": np.frombuffer(blob, dtype=np.uint8).copy(),
            "native_sizes": sizes,
            "native_checksum": _checksum(blob, sizes),
            "fixed_levels": self._fixed_levels.copy(),
            "episode_returns": self._episode_returns.copy(),
            "episode_lengths": self._episode_lengths.copy(),
            "reward_observation": self._reward_observation.copy(),
        }

    def set_state(self, state: State) -> Observation:
        """Continue from `state`, of this or another instance or process; returns the observation.

        Raises `UserError` if the state is damaged or of other games, numbers of environments, modes or levels.
        """
        self._require_idle("set_state")
        blob, sizes = self._checked_native(state)
        ends = np.cumsum(sizes)
        for env, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
            self._native.set_state(env, blob[start:end])
        self.current_seed = int(state["seed"])
        pending = int(state["pending_seed"])
        self._seeds = [None if pending < 0 else pending] * self.num_envs
        self._unplayed = bool(state["unplayed"])
        self._fixed_levels[:] = state["fixed_levels"]
        self._episode_returns[:] = state["episode_returns"]
        self._episode_lengths[:] = state["episode_lengths"]
        self._reward_observation = np.array(state["reward_observation"], dtype=np.float32)
        return self.observe()

    def _checked_native(self, state: State) -> tuple[bytes, NDArray[np.int64]]:
        """Bytes and sizes of the native states, known to fit: with others the library ends the process."""
        check_state(state, _STATE_KEYS, self._identity())
        sizes = np.asarray(state["native_sizes"], dtype=np.int64)
        if len(sizes) != self.num_envs:
            raise UserError(f"environment state has {len(sizes)} environments, this one has {self.num_envs}")
        blob = np.asarray(state["native"], dtype=np.uint8).tobytes()
        if sizes.sum() != len(blob) or _checksum(blob, sizes) != state["native_checksum"]:
            raise UserError("environment state is damaged (checksum): use an earlier checkpoint")
        return blob, sizes

    # Rendering

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One frame (512, 512, 3) for each environment, as of the last observation; None without render mode."""
        if self._native.frames is None:
            return [None] * self.num_envs
        return list(self._native.frames.copy())

    # The rest of the VecEnv interface

    def close(self) -> None:
        """Free the native instance. May be called twice."""
        self._native.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute for each environment: one set by `set_attr`, or "game", or one of the whole environment."""
        envs = self._env_indices(indices)
        if attr_name in self._env_values:
            values = self._env_values[attr_name]
            missing = [env for env in envs if env not in values]
            if missing:
                raise AttributeError(f"attribute {attr_name!r} is not set in environments {missing}")
            return [values[env] for env in envs]
        if attr_name == "game":
            return [self.games[self.game_of_env[env]] for env in envs]
        value = getattr(self, attr_name)
        return [value for _ in envs]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Attach a value to environments, for `get_attr`. What the environment itself defines cannot be changed."""
        if attr_name == "game" or hasattr(self, attr_name):
            raise AttributeError(f"attribute {attr_name!r} of ProcgenVecEnv cannot be changed")
        self._env_values.setdefault(attr_name, {}).update(dict.fromkeys(self._env_indices(indices), value))

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment. They have two: `render()` and `get_wrapper_attr(name)`."""
        methods: dict[str, Callable[..., Any]] = {
            "render": self._render_env,
            "get_wrapper_attr": self._env_attr,
        }
        if method_name not in methods:
            raise AttributeError(
                f"environments of ProcgenVecEnv have no method {method_name!r}: they have {', '.join(methods)}"
            )
        return [
            methods[method_name](env, *method_args, **method_kwargs) for env in self._env_indices(indices)
        ]

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """True for `Monitor` alone: episodes are reported in its form, though no wrapper does it."""
        return [wrapper_class is Monitor for _ in self._env_indices(indices)]

    def _env_indices(self, indices: Indices) -> list[int]:
        return [range(self.num_envs)[env] for env in self._get_indices(indices)]

    def _render_env(self, env: int) -> NDArray[np.uint8] | None:
        frames = self._native.frames
        return None if frames is None else frames[env].copy()

    def _env_attr(self, env: int, name: str) -> Any:
        return self.get_attr(name, env)[0]
