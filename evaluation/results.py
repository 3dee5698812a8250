"""What an evaluation found, and how it was made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from envs import Levels
from evaluation.protocol import Protocol
from evaluation.rollouts import Episode
from evaluation.scores import Estimate, aggregate, estimate, normalized
from evaluation.subject import Subject


@dataclass(frozen=True)
class GameScore:
    """The episodes of one game on one split."""

    game: str
    mode: str
    levels: Levels
    episodes: tuple[Episode, ...]

    @property
    def raw(self) -> Estimate:
        """Mean episode return (raw rewards)."""
        return estimate([episode.score for episode in self.episodes])

    @property
    def normalized(self) -> Estimate:
        """Mean episode return on ProcGen's scale from 0 (trivial) to 1 (best possible)."""
        return normalized(self.game, self.mode, self.raw)


@dataclass(frozen=True)
class Results:
    """Scores of one policy.

    Attributes:
        subject: what was evaluated.
        protocol: how.
        scores: one for each game and split.
    """

    subject: Subject
    protocol: Protocol
    scores: tuple[GameScore, ...]

    def score(self, game: str, split: str) -> GameScore:
        """The score of a game on a split, both by name. Raises KeyError if they were not evaluated."""
        for score in self.scores:
            if (score.game, score.levels.name) == (game, split):
                return score
        raise KeyError((game, split))

    def aggregate(self, split: str) -> Estimate:
        """Mean over the games of the normalised scores on a split."""
        return aggregate([score.normalized for score in self.scores if score.levels.name == split])

    def to_json(self) -> dict[str, Any]:
        """Everything, each episode included, as plain JSON values (null where a number is not known)."""
        splits = [levels.name for levels in self.protocol.levels]
        return {
            "subject": self.subject.to_json(),
            "protocol": {**asdict(self.protocol), "games": list(self.protocol.games), "splits": splits},
            "aggregate": {split: _estimate_json(self.aggregate(split)) for split in splits},
            "scores": [_score_json(score) for score in self.scores],
        }


def _score_json(score: GameScore) -> dict[str, Any]:
    return {
        "game": score.game,
        "split": score.levels.name,
        "level_start": score.levels.start,
        "level_count": score.levels.count,
        "raw": _estimate_json(score.raw),
        "normalized": _estimate_json(score.normalized),
        "episodes": {
            "return": [episode.score for episode in score.episodes],
            "length": [episode.length for episode in score.episodes],
            "level": [episode.level for episode in score.episodes],
            "complete": [episode.complete for episode in score.episodes],
        },
    }


def _estimate_json(value: Estimate) -> dict[str, float | None]:
    return {key: number if math.isfinite(number) else None for key, number in asdict(value).items()}
