"""Which level each episode plays: both sides of a session meet the same ones in the same order."""

from __future__ import annotations

import numpy as np

from envs import GAMES, Levels, parse_levels
from envs.levels import MAX_LEVEL
from evaluation.rebuild import Training


class LevelOrder:
    """The levels of one game, one for each episode.

    Args:
        game: its name; what is drawn for it does not depend on the other games.
        levels: from which they are drawn, with replacement.
        level: the only one, instead of drawing.
        seed: of the draws.
    """

    def __init__(self, game: str, levels: Levels, level: int | None, seed: int) -> None:
        entropy = [seed, list(GAMES).index(game), levels.start, levels.count]
        self._generator = np.random.default_rng(np.random.SeedSequence(entropy))
        self._levels, self._level = levels, level

    def next(self) -> int:
        """The level of the next episode."""
        if self._level is not None:
            return self._level
        end = self._levels.start + self._levels.count if self._levels.count else MAX_LEVEL + 1
        return int(self._generator.integers(self._levels.start, end))


def kind_of_level(training: Training, game: str, mode: str, level: int) -> str:
    """Whether an agent was trained on a level: "training", "unseen", or "unknown" if its checkpoint does not tell."""
    if not training.games:
        return "unknown"
    if game not in training.games or mode != training.mode:
        return "unseen"
    levels = parse_levels(training.levels, training.mode)
    trained = levels.count == 0 or level in levels.seeds
    return "training" if trained else "unseen"
