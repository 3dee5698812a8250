"""Which levels are played: named splits and explicit ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import UserError, shown, unknown_name

# Level seeds are int32 in the native library, and the end of a range must be one too.
MAX_LEVEL = 2**31 - 2

_TRAIN_LEVELS = 200
_MEMORY_TRAIN_LEVELS = 500
_TEST_LEVELS = 200
_TEST_STARTS = {"test1": 1000, "test2": 1200, "test3": 1400}
SPLITS: tuple[str, ...] = ("train", *_TEST_STARTS, "all")


@dataclass(frozen=True)
class Levels:
    """`count` levels from level seed `start` on; `count` 0 means all levels, without an end."""

    name: str
    start: int
    count: int

    @property
    def seeds(self) -> range:
        """The level seeds, in order. Raises `UserError` for unlimited levels."""
        if self.count == 0:
            raise UserError(
                f"levels {self.name!r} are unlimited and cannot be listed: use a range such as 0:200"
            )
        return range(self.start, self.start + self.count)

    def __str__(self) -> str:
        return self.name


def parse_levels(text: str, mode: str = "easy") -> Levels:
    """Levels by name (train, test1, test2, test3, all) or as a range "A:B", which means levels A to B - 1.

    `train` is levels 0-199, in memory mode 0-499; the three test splits are 200 levels each from 1000, 1200
    and 1400 (Irie et al., arXiv 2202.05780); `all` is unlimited and contains the training levels.
    Raises `UserError` for anything else.
    """
    name = text.strip()
    if name == "train":
        return Levels(name, 0, _MEMORY_TRAIN_LEVELS if mode == "memory" else _TRAIN_LEVELS)
    if name == "all":
        return Levels(name, 0, 0)
    if name in _TEST_STARTS:
        return Levels(name, _TEST_STARTS[name], _TEST_LEVELS)
    match = re.fullmatch(r"0*([0-9]{1,10}):0*([0-9]{1,10})", name)
    if match is None:
        raise UserError(unknown_name("levels", text, [*SPLITS, "A:B for levels A to B-1"]))
    first, end = int(match[1]), int(match[2])
    if first >= end:
        raise UserError(
            f"levels {shown(text)} are empty: A:B means levels A to B-1, so B must be larger than A"
        )
    if end > MAX_LEVEL + 1:
        raise UserError(f"levels {shown(text)} are too large: the last level is {MAX_LEVEL}")
    return Levels(f"{first}:{end}", first, end - first)
