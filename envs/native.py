"""The native ProcGen library: the only module that imports it.

The library ends the process on bad arguments, so callers check everything first (`envs.checks`).
Instances with threads do not survive a fork: create them after it, or start processes with "spawn".
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from numpy.typing import NDArray

from common.errors import UserError
from envs.levels import Levels

IMAGE_SHAPE = (64, 64, 3)
FRAMES_PER_SECOND = 15

# The keys held down by each of the 15 actions. The last six depend on the game; D often fires.
BUTTON_COMBOS: tuple[tuple[str, ...], ...] = (
    ("LEFT", "DOWN"),
    ("LEFT",),
    ("LEFT", "UP"),
    ("DOWN",),
    (),
    ("UP",),
    ("RIGHT", "DOWN"),
    ("RIGHT",),
    ("RIGHT", "UP"),
    ("D",),
    ("A",),
    ("W",),
    ("S",),
    ("Q",),
    ("E",),
)
NUM_ACTIONS = len(BUTTON_COMBOS)
NO_OP = BUTTON_COMBOS.index(())
ACTION_NAMES: tuple[str, ...] = tuple("+".join(combo).lower() or "none" for combo in BUTTON_COMBOS)

# The native step takes -1 as "do nothing, then end the episode" (Game::step in procgen/src/game.cpp).
_END_EPISODE = -1


@functools.cache
def _env_class() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package leaves a file open while it is imported
            from procgen import ProcgenGym3Env
    except ModuleNotFoundError as error:
        raise UserError(
            f"ProcGen cannot be imported ({error}):"
            " install procgen (Python up to 3.10) or procgen-mirror (3.11, 3.12)"
        ) from error
    return ProcgenGym3Env


def library_version() -> str:
    """Distribution and version of the installed library, such as "procgen-mirror 0.10.7"."""
    for name in ("procgen", "procgen-mirror"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "procgen (unknown version)"


class NativeEnv:
    """One native instance of B environments; environment i plays `games[i % len(games)]`.

    `mode` is a native one: exploration mode is hard mode on a fixed level (see `level_state`).
    """

    def __init__(
        self,
        games: Sequence[str],
        num_envs: int,
        mode: str,
        levels: Levels,
        seed: int,
        num_threads: int,
        render: bool = False,
    ) -> None:
        self._env = _env_class()(
            num=num_envs,
            env_name=",".join(games),
            distribution_mode=mode,
            num_levels=levels.count,
            start_level=levels.start,
            rand_seed=seed,
            num_threads=num_threads,
            render_mode="rgb_array" if render else None,
        )
        # cffi makes each function of a library when it is first asked for, and holds a lock over it that is not
        # reentrant. An instance that nobody closed is closed by the garbage collector, which may run while that very
        # lock is held, and would wait for ever: unless its function is there already.
        _ = self._env._c_lib.libenv_close
        self.num_envs, self._closed = num_envs, False
        # Views of the buffers that the library writes; `get_info` would observe again and loop over environments.
        info = self._env._info
        self.level_seed: NDArray[np.int32] = info["level_seed"]
        self.prev_level_seed: NDArray[np.int32] = info["prev_level_seed"]
        self.prev_level_complete: NDArray[np.uint8] = info["prev_level_complete"]
        self.frames: NDArray[np.uint8] | None = info.get("rgb")
        self.observe()  # waits until the buffers hold the first frames

    def act(self, actions: NDArray[np.int32]) -> None:
        """Start one step with actions (B,); returns at once when the instance has threads."""
        self._library.act(actions)

    def end_episodes(self) -> None:
        """Start a step that ends every episode: the next `observe` shows first frames of new ones."""
        self._library.act(np.full(self.num_envs, _END_EPISODE, dtype=np.int32))

    def observe(self) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
        """Wait for the step: rewards (B,), images (B, 64, 64, 3), first-frame flags (B,).

        These are copies, never written again; the other buffers change with each step.
        """
        reward, observation, first = self._library.observe()
        return reward, observation["rgb"], first

    def get_states(self) -> list[bytes]:
        """The state of each environment, 20 to 30 kB each: level generator, level and everything in it."""
        states: list[bytes] = self._library.get_state()
        return states

    def set_state(self, env: int, state: bytes) -> None:
        """Put one environment into a state of the same game; a damaged state ends the process."""
        self._library.call_c_func("set_state", env, state, len(state))

    def close(self) -> None:
        """Free the instance. May be called twice."""
        self._closed = True
        self._env.close()

    @property
    def _library(self) -> Any:
        if self._closed:
            raise ClosedEnvironmentError("this environment has been closed: make a new one")
        return self._env

    def __getstate__(self) -> Any:
        raise TypeError(
            "an environment lives in the native library and cannot be pickled: make it in the process that plays it; "
            "get_state and set_state carry over where it stands"
        )


def level_state(game: str, mode: str, level_seed: int) -> bytes:
    """The state of an environment at the first frame of one level, which it will play again after every episode.

    The range of levels is part of an environment's state, so an instance made for a single level has such a state.
    Takes about 0.7 ms and leaks about 10 kB inside the library.
    """
    donor = NativeEnv([game], 1, mode, Levels(str(level_seed), level_seed, 1), seed=0, num_threads=0)
    try:
        return donor.get_states()[0]
    finally:
        donor.close()
