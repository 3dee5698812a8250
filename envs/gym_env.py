"""One ProcGen game as a gymnasium environment, registered as "Procgen/<game>-v0"."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from common.errors import UserError
from envs.checks import MAX_SEED
from envs.games import GAMES
from envs.levels import Levels
from envs.native import FRAMES_PER_SECOND
from envs.vec_env import Observation, ProcgenVecEnv


def environment_id(game: str) -> str:
    """The name under which `gymnasium.make` knows a game: "bigfish" -> "Procgen/bigfish-v0"."""
    return f"Procgen/{game}-v0"


def register_environments() -> None:
    """Make all games known to `gymnasium.make` and `gymnasium.make_vec`. May be called twice."""
    for game in GAMES:
        if environment_id(game) not in gymnasium.registry:
            gymnasium.register(
                environment_id(game),
                entry_point="envs.gym_env:ProcgenEnv",
                vector_entry_point="envs.gym_vector:ProcgenVectorEnv",
                kwargs={"game": game},
            )


class ProcgenEnv(gymnasium.Env[Observation, np.int64]):
    """One game, with the observation, actions and arguments of `ProcgenVecEnv`.

    `step` never shows the frame in which an episode ends, because the library does not: the last observation
    of an episode repeats the frame before, with the last reward. An episode that reaches the step limit is
    truncated. Infos hold "level_seed", the level being played, and where an episode ends also
    "prev_level_seed" (the same), "prev_level_complete" and "normalized_return".

    Raises `UserError` as `ProcgenVecEnv` does.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium declares it for instances)
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND,
    }

    def __init__(
        self, game: str, mode: str = "easy", levels: str | Levels = "train", render_mode: str | None = None
    ) -> None:
        self._vec_env = ProcgenVecEnv([game], 1, mode, levels, render_mode=render_mode, num_threads=0)
        self.observation_space = self._vec_env.observation_space
        self.action_space = self._vec_env.action_space
        self.render_mode = render_mode
        self._drawing: dict[str, Any] | None = None  # state to draw levels from, while a chosen one is played
        self._rgb: NDArray[np.uint8] | None = None  # last frame of the running episode; None: reset needed
        self._next_rgb: NDArray[np.uint8] | None = (
            None  # first frame of an episode that has not been announced yet
        )
        self._image: NDArray[np.uint8] | None = None
        self._level_seed = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode, also in the middle of one, on the next level drawn.

        `seed` restarts the draws (the first reset without one takes a random seed). With
        options={"level_seed": n} this episode plays level n; the next reset without it draws again.
        Raises `UserError` for other options and for levels that do not exist.
        """
        level = self._chosen_level(options)
        draws_anew = seed is not None or self._np_random is None
        super().reset(seed=seed)
        if self._drawing is not None:
            self._vec_env.set_state(self._drawing)
            self._drawing = None
            self._next_rgb = None
        if draws_anew:
            self._vec_env.seed(seed if seed is not None else int(self.np_random.integers(MAX_SEED)))
        if draws_anew or (level is None and self._next_rgb is None):
            self._next_rgb = self._vec_env.reset()["rgb"][0]
        if level is not None:
            self._drawing = self._vec_env.get_state()
            self._next_rgb = self._vec_env.play_levels([0], [level])["rgb"][0]
        assert self._next_rgb is not None
        self._rgb, self._next_rgb = self._next_rgb, None
        self._image = self._vec_env.get_images()[0]
        self._level_seed = self._vec_env.current_levels[0]
        return self._observation(0.0), {"level_seed": self._level_seed}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step: observation, reward, terminated, truncated, info.

        Raises `ResetNeeded` before the first reset and after the end of an episode.
        """
        if self._rgb is None:
            raise ResetNeeded("no episode is running: call reset() first")
        self._vec_env.step_async(np.array([action]))
        observation, rewards, dones, infos = self._vec_env.step_wait()
        reward = float(rewards[0])
        info: dict[str, Any] = {"level_seed": self._level_seed}
        if not dones[0]:
            self._rgb = observation["rgb"][0]
            self._image = self._vec_env.get_images()[0]
            return self._observation(reward), reward, False, False, info
        for key in ("prev_level_seed", "prev_level_complete", "normalized_return"):
            info[key] = infos[0][key]
        truncated = infos[0]["TimeLimit.truncated"]
        last = self._observation(reward)
        self._rgb, self._next_rgb = None, observation["rgb"][0]
        return last, reward, not truncated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """The frame (512, 512, 3) of the last observation, or None without render mode."""
        return None if self._image is None else self._image.copy()

    def close(self) -> None:
        """Free the native instance."""
        self._vec_env.close()

    def _observation(self, reward: float) -> Observation:
        assert self._rgb is not None
        clipped = np.clip(np.array([reward], dtype=np.float32), -1, 1)
        return {"rgb": self._rgb.copy(), "reward": clipped}

    @staticmethod
    def _chosen_level(options: dict[str, Any] | None) -> int | None:
        unknown = sorted(set(options or {}) - {"level_seed"})
        if unknown:
            raise UserError(
                f"unknown reset options {', '.join(map(repr, unknown))}: the only one is 'level_seed'"
            )
        level = (options or {}).get("level_seed")
        return None if level is None else int(level)


register_environments()
