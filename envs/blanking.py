"""Frames that are withheld, so that an agent has to remember what it saw: which frames of an episode are black."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

MAX_STEPS = 1_000_000
"""Longest period; beyond it a number is a typing error."""
_FORMS = "give K of P (of every P frames the last K are black) or after N (all but the first N are)"


@dataclass(frozen=True)
class Blanking:
    """Which frames of an episode are black, counted from its first one, which never is.

    Attributes:
        shown: how many frames at the start of each period are shown.
        period: frames after which showing begins again; None for never.
    """

    shown: int
    period: int | None

    def hides(self, ages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the frames with so many steps of their episodes before them are black."""
        place = ages if self.period is None else ages % self.period
        hidden: NDArray[np.bool_] = place >= self.shown
        return hidden


def parse_blanking(text: str) -> Blanking:
    """What ``"4 of 8"`` (of every 8 frames of an episode the last 4 are black) or ``"after 1"`` means.

    Raises:
        UserError: it is neither, or the first frame of an episode would be black.
    """
    if match := re.fullmatch(r"([0-9]{1,7}) of ([0-9]{1,7})", text.strip()):
        hidden, period = int(match[1]), int(match[2])
        if 1 <= hidden < period <= MAX_STEPS:
            return Blanking(period - hidden, period)
    if match := re.fullmatch(r"after ([0-9]{1,7})", text.strip()):
        shown = int(match[1])
        if 1 <= shown <= MAX_STEPS:
            return Blanking(shown, None)
    raise UserError(f"blank {text[:40]!r}: {_FORMS}, with K below P and N at least 1")


def blanking_problems(text: str | None) -> list[str]:
    """What is wrong with a setting of frames to be withheld; None withholds none."""
    try:
        if text is not None:
            parse_blanking(text)
    except UserError as error:
        return [str(error)]
    return []
