"""The observations and actions that agents work with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import UserError


def image_and_actions(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> tuple[tuple[int, int, int], int]:
    """Image shape (H, W, C) and number of actions.

    Raises:
        UserError: the spaces are of another form.
    """
    if (
        not isinstance(observation_space, spaces.Dict)
        or set(observation_space.keys()) != {"rgb", "reward"}
        or len(observation_space["rgb"].shape or ()) != 3
        or observation_space["rgb"].dtype != np.uint8
        or observation_space["reward"].shape != (1,)
    ):
        raise UserError(
            "observations must be Dict(rgb: uint8 (height, width, channels), reward: float32 (1,)), "
            f"as envs.ProcgenVecEnv gives them, not {observation_space}"
        )
    if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
        raise UserError(f"actions must be Discrete and start at 0, not {action_space}")
    shape = observation_space["rgb"].shape
    assert shape is not None
    return (shape[0], shape[1], shape[2]), int(action_space.n)


def spaces_of(image_shape: Iterable[int], num_actions: int) -> tuple[spaces.Dict, spaces.Discrete[Any]]:
    """The spaces with this image shape (H, W, C) and number of actions: the inverse of `image_and_actions`."""
    observation = spaces.Dict(
        rgb=spaces.Box(0, 255, tuple(image_shape), np.uint8), reward=spaces.Box(-1.0, 1.0, (1,), np.float32)
    )
    return observation, spaces.Discrete(num_actions)
