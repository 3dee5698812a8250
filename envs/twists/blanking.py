"""Frames that are withheld, so that an agent has to remember what it saw: which frames of an episode are black."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.twists.base import Ints, Twist

FORMS = "blank K of P (of every P frames the last K are black), blank after N (all but the first N are)"


@dataclass(frozen=True)
class Blanking(Twist):
    """Which frames of an episode are black, counted from its first one, which never is.

    Attributes:
        shown: how many frames at the start of each period are shown.
        period: frames after which showing begins again; None for never.
    """

    shown: int
    period: int | None

    def hides(self, ages: Ints) -> NDArray[np.bool_]:
        """Whether the frames with so many steps of their episodes before them are black."""
        place = ages if self.period is None else ages % self.period
        hidden: NDArray[np.bool_] = place >= self.shown
        return hidden

    def show(self, rgb: NDArray[np.uint8], ages: Ints, levels: Ints) -> None:
        rgb[self.hides(ages)] = 0


def parse(text: str) -> Blanking | None:
    """What ``"4 of 8"`` or ``"after 1"`` means; None if it means nothing, or would hide an episode's first frame."""
    if match := re.fullmatch(r"([0-9]{1,6}) of ([0-9]{1,6})", text):
        hidden, period = int(match[1]), int(match[2])
        return Blanking(period - hidden, period) if 1 <= hidden < period else None
    if match := re.fullmatch(r"after ([0-9]{1,6})", text):
        return Blanking(int(match[1]), None) if int(match[1]) >= 1 else None
    return None
