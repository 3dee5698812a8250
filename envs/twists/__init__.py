"""Games in which the past must be used: a twist withholds or asks something, whatever the game.

A new one is a file beside these with a class, a function that reads its words, and what may be
written; and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import UserError
from envs.twists import blanking, cue
from envs.twists.base import Twist
from envs.twists.blanking import Blanking
from envs.twists.cue import Cue

__all__ = ["TWISTS", "Blanking", "Cue", "Twist", "parse_twist", "twist_problems"]

TWISTS: dict[str, tuple[Callable[[str], Twist | None], str]] = {
    "blank": (blanking.parse, blanking.FORMS),
    "cue": (cue.parse, cue.FORMS),
}
"""By name: what reads the words after it, and what these may be."""


def parse_twist(text: str) -> Twist:
    """What ``"blank 4 of 8"`` (of every 8 frames of an episode the last 4 are black) or ``"cue 16"`` means.

    Raises:
        UserError: it means nothing; the message says what may be written.
    """
    name, _, words = text.strip().partition(" ")
    found = TWISTS[name][0](words.strip()) if name in TWISTS else None
    if found is None:
        forms = ", ".join(forms for _, forms in TWISTS.values())
        raise UserError(f"twist {text[:40]!r}: give {forms}; numbers are from 1 to 999,999, and K below P")
    return found


def twist_problems(text: str | None) -> list[str]:
    """What is wrong with the setting of a twist; None is none."""
    try:
        if text is not None:
            parse_twist(text)
    except UserError as error:
        return [str(error)]
    return []
