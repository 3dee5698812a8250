"""A cue in the first frame of an episode, and questions about it while the game goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.twists.base import Ints, Twist

FORMS = "cue N (the first frame has a coloured border; every N steps it is asked for)"
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
ANSWERS = np.array([1, 7, 5, 3])
"""The action that names each colour: left, right, up, down."""
QUESTION = np.array([255, 255, 255], np.uint8)
BORDER = 4
"""Pixels."""


@dataclass(frozen=True)
class Cue(Twist):
    """The border of an episode's first frame has one of four colours; a white one asks for it every `delay` steps.

    The right action at a question is rewarded by 1, beside what the game gives; others cost nothing. So an agent
    without memory answers one question of four. A level always has the same colour, whose number is a hash of its
    seed: `levels all` is where nobody can learn the levels by heart.

    Attributes:
        delay: steps from the first frame to the first question, and from each question to the next.
    """

    delay: int

    def colours(self, levels: Ints) -> Ints:
        """The number (B,) of the colour of each level."""
        # Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4): its upper bits are the mixed ones.
        found: Ints = (levels.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(62)).astype(
            np.int64
        )
        return found

    def asks(self, ages: Ints) -> NDArray[np.bool_]:
        """Whether frames with so many steps of their episodes before them ask."""
        asked: NDArray[np.bool_] = (ages > 0) & (ages % self.delay == 0)
        return asked

    def show(self, rgb: NDArray[np.uint8], ages: Ints, levels: Ints) -> None:
        _paint_border(rgb, ages == 0, COLOURS[self.colours(levels)])
        _paint_border(rgb, self.asks(ages), np.broadcast_to(QUESTION, (len(rgb), 3)))

    def rewards(self, actions: Ints, ages: Ints, levels: Ints) -> NDArray[np.float32]:
        right = ANSWERS[self.colours(levels)] == actions
        found: NDArray[np.float32] = (self.asks(ages) & right).astype(np.float32)
        return found


def _paint_border(rgb: NDArray[np.uint8], chosen: NDArray[np.bool_], colours: NDArray[np.uint8]) -> None:
    """Paint a border of these colours (B, 3) around the `chosen` (B,) of the frames."""
    if not chosen.any():
        return
    inside = rgb[chosen, BORDER:-BORDER, BORDER:-BORDER]
    rgb[chosen] = colours[chosen, None, None]
    rgb[chosen, BORDER:-BORDER, BORDER:-BORDER] = inside


def parse(text: str) -> Cue | None:
    """What ``"16"`` means; None if it is no number of steps."""
    match = re.fullmatch(r"[0-9]{1,6}", text)
    return Cue(int(text)) if match and int(text) >= 1 else None
