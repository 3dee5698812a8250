"""How an agent is scored: what it plays, how it chooses actions, how episodes are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from common import config
from common.config import Range
from common.errors import UserError, shown
from envs import Levels, environment_problems, parse_levels
from envs.checks import MAX_ENVS
from policies.resets import parse_reset

ALL_SPLITS = ("train", "test1", "test2", "test3")
DEFAULT_NUM_ENVS = 100


@dataclass(frozen=True)
class Protocol:
    """A protocol; the defaults are the final test of Irie et al. (arXiv 2202.05780).

    Attributes:
        splits: The levels that are played: train, test1, test2, test3, all, or "A:B" for levels A to B-1.
        episodes: How many episodes of each game and split are played.
        greedy: Whether the most likely action is taken instead of drawing one.
        every_level: Whether each level of a split is played exactly once, instead of `episodes` with levels drawn with
            replacement.
        seed: Of the levels and of the actions that are drawn.
        num_envs: Environments of each game that are stepped together.
        reset: The reset rule of the core, where it is not the one it was trained with.
        twist: What is withheld or asked, as for `envs.ProcgenVecEnv`.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    splits: tuple[str, ...] = ALL_SPLITS
    episodes: Annotated[int, Range(1, 10**9)] = 200
    greedy: bool = True
    every_level: bool = False
    seed: int = 0
    num_envs: Annotated[int, Range(1, MAX_ENVS)] = DEFAULT_NUM_ENVS
    reset: str | None = None
    twist: str | None = None

    @property
    def levels(self) -> tuple[Levels, ...]:
        """The levels of each split. Raises `UserError` for an unknown one."""
        return tuple(parse_levels(split, self.mode) for split in self.splits)

    def episodes_on(self, levels: Levels) -> int:
        """How many episodes of each game are played on a split."""
        return levels.count if self.every_level else self.episodes

    def num_envs_on(self, levels: Levels) -> int:
        """How many environments play each game on a split: no more than there are episodes."""
        return min(self.num_envs, self.episodes_on(levels))

    @property
    def total_episodes(self) -> int:
        """Episodes of all games and splits."""
        return len(self.games) * sum(self.episodes_on(levels) for levels in self.levels)

    @property
    def text(self) -> str:
        """How actions are chosen and episodes are counted, in words."""
        if self.every_level:
            counting = "each level of a split exactly once"
        elif self.mode == "exploration":
            counting = f"{self.episodes} episodes of each game, on its one level"
        else:
            counting = f"{self.episodes} episodes of each game and split, levels drawn with replacement"
        hidden = "" if self.twist is None else f"; twist: {self.twist}"
        return f"{'greedy (most likely)' if self.greedy else 'sampled'} actions; {counting}{hidden}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, with the names of the levels."""
        return {**config.plain(self), "splits": [levels.name for levels in self.levels]}

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = environment_problems(
            self.games, max(1, len(self.games)), self.mode, "train", self.seed, twist=self.twist
        )
        found += config.problems(self)
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
                found.append(f"split {shown(split)} is listed more than once: list it once")
            names.append(levels.name)
            if self.every_level and levels.count == 0:
                found.append(f"split {shown(split)} has no end, so its levels cannot all be played: give A:B")
        if self.mode == "exploration" and len(self.splits) > 1:
            found.append("exploration mode has one level per game whatever the split: give one split")
        if self.mode == "exploration" and self.every_level:
            found.append("exploration mode has one level per game: leave --every-level out")
        return found
