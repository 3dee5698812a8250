"""Many copies of one ProcGen game as gymnasium's `VectorEnv`: what `make_vec` makes of "Procgen/<game>-v0"."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from common.errors import UserError
from envs.checks import MAX_SEED
from envs.levels import Levels
from envs.native import FRAMES_PER_SECOND
from envs.vec_env import Observation, ProcgenVecEnv

# Releases before 1.1 know no modes.
_MODES: Any = getattr(gymnasium.vector, "AutoresetMode", None)


class ProcgenVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` environments of one game that step in the native library, all at once.

    Observations, actions and the other arguments are those of `ProcgenVecEnv`. An episode that ends begins anew within
    the same step (`AutoresetMode.SAME_STEP`): the observation is the first of the next one. The library never shows the
    frame in which an episode ends, so infos hold no "final_obs"; as in gymnasium, an array for each name and a mask
    "_name", where an episode ended: "game", "normalized_return", "level_seed" (now starting), "prev_level_seed",
    "prev_level_complete", and after a reset "level_seed". An episode that reaches the step limit is truncated.

    Raises:
        UserError: as `ProcgenVecEnv` does.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium declares it for instances)
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND,
        **({"autoreset_mode": _MODES.SAME_STEP} if _MODES is not None else {}),
    }

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        mode: str = "easy",
        levels: str | Levels = "train",
        render_mode: str | None = None,
        num_threads: int = 4,
    ) -> None:
        self._vec_env = ProcgenVecEnv(
            [game], num_envs, mode, levels, render_mode=render_mode, num_threads=num_threads
        )
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self._vec_env.observation_space
        self.single_action_space = self._vec_env.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode in every environment.

        `seed` restarts the draws of levels, which one generator makes for all environments; the first reset without one
        takes a random seed. Raises `UserError` for a list of seeds and for options.
        """
        if isinstance(seed, (list, tuple)):
            raise UserError("one generator draws the levels of all environments: give a single seed")
        if options:
            raise UserError(f"there are no reset options such as {', '.join(map(repr, options))}")
        first = self._np_random is None
        super().reset(seed=seed)
        if seed is not None or first:
            self._vec_env.seed(seed if seed is not None else int(self.np_random.integers(MAX_SEED)))
        observation = self._vec_env.reset()
        return observation, self._infos([{"level_seed": n} for n in self._vec_env.current_levels])

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One step of all: observation, rewards, terminations, truncations (each (B,)), infos."""
        self._vec_env.step_async(np.asarray(actions))
        observation, rewards, dones, infos = self._vec_env.step_wait()
        truncations = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        # Statistics of episodes are for wrappers to keep, under the same name.
        hidden = ("episode", "TimeLimit.truncated")
        shown = [{name: value for name, value in info.items() if name not in hidden} for info in infos]
        return observation, rewards.astype(np.float64), dones & ~truncations, truncations, self._infos(shown)

    def _infos(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, info in enumerate(infos):
            found = self._add_info(found, info, number)
        return found

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A frame (512, 512, 3) of each environment, or None without render mode."""
        images = self._vec_env.get_images()
        return None if self.render_mode is None else tuple(image for image in images if image is not None)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the native instance."""
        self._vec_env.close()
