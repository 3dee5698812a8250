"""How an agent is scored: what it plays, how it chooses actions, how episodes are counted."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UserError
from envs import Levels, environment_problems, parse_levels
from policies.resets import parse_reset

ALL_SPLITS = ("train", "test1", "test2", "test3")
DEFAULT_SLOTS = 100


@dataclass(frozen=True)
class Protocol:
    """A protocol; the defaults are the final test of Irie et al. (arXiv 2202.05780).

    Attributes:
        games: what to play.
        mode: easy, hard, memory, exploration or extreme.
        splits: levels to play: train, test1, test2, test3, all, or "A:B" for levels A to B-1.
        episodes: of each game and split.
        greedy: take the most likely action instead of drawing one.
        every_level: play each level of a split exactly once, instead of `episodes` with levels drawn with
            replacement.
        seed: of the levels drawn and of the actions drawn.
        slots: environments of each game that are stepped together.
        reset: reset rule of the core, in place of the one it was trained with; None for that one.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    splits: tuple[str, ...] = ALL_SPLITS
    episodes: int = 200
    greedy: bool = True
    every_level: bool = False
    seed: int = 0
    slots: int = DEFAULT_SLOTS
    reset: str | None = None

    @property
    def levels(self) -> tuple[Levels, ...]:
        """The levels of each split. Raises `UserError` for an unknown one."""
        return tuple(parse_levels(split, self.mode) for split in self.splits)

    def episodes_on(self, levels: Levels) -> int:
        """How many episodes of each game are played on a split."""
        return levels.count if self.every_level else self.episodes

    def slots_on(self, levels: Levels) -> int:
        """How many environments play each game on a split: no more than there are episodes."""
        return min(self.slots, self.episodes_on(levels))

    @property
    def total_episodes(self) -> int:
        """Episodes of all games and splits."""
        return len(self.games) * sum(self.episodes_on(levels) for levels in self.levels)

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = environment_problems(self.games, max(1, len(self.games)), self.mode, "train", self.seed)
        for name in ("episodes", "slots"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.reset is not None:
            try:
                parse_reset(self.reset)
            except UserError as error:
                found.append(str(error))
        return found + self._split_problems()

    def _split_problems(self) -> list[str]:
        found = [] if self.splits else ["no splits: name at least one, such as train or test1"]
        names: list[str] = []
        for split in self.splits:
            try:
                levels = parse_levels(split, self.mode)
            except UserError as error:
                found.append(str(error))
                continue
            if levels.name in names:
                found.append(f"split {split!r} is listed more than once: list it once")
            names.append(levels.name)
            if self.every_level and levels.count == 0:
                found.append(f"split {split!r} has no end, so its levels cannot all be played: give A:B")
        if self.mode == "exploration" and len(self.splits) > 1:
            found.append("exploration mode has one level per game whatever the split: give one split")
        if self.mode == "exploration" and self.every_level:
            found.append("exploration mode has one level per game: leave --every-level out")
        return found
