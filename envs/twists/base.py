"""What a twist may change of a game: what the agent is shown, and what it is rewarded for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]


class Twist(ABC):
    """A game with something withheld, or asked, so that the past must be used.

    A twist has no state: what it does depends on how old an episode is (steps before this one, `ages` (B,)) and on its
    level (`levels` (B,)). So recordings can be played again, and nothing has to be kept for exact continuation.
    """

    @abstractmethod
    def show(self, rgb: NDArray[np.uint8], ages: Ints, levels: Ints) -> None:
        """Change the frames (B, 64, 64, 3) that agents are given, in place."""

    def rewards(self, actions: Ints, ages: Ints, levels: Ints) -> NDArray[np.float32]:
        """What is added to the rewards (B,) of `actions` (B,), chosen on seeing frames of these ages and levels."""
        return np.zeros(len(actions), np.float32)
