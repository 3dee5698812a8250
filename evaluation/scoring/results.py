"""What an evaluation found, and how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from envs import Levels, score_range
from evaluation.agent_info import AgentInfo
from evaluation.scoring.protocol import Protocol


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        score: The sum of the raw rewards.
        length: The number of steps.
        level: The seed of the level.
        complete: Whether the game says that the level was solved.
    """

    score: float
    length: int
    level: int
    complete: bool

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Episode:
        """The episode that the info of its last step describes."""
        episode = info["episode"]
        return cls(
            float(episode["r"]),
            int(episode["l"]),
            int(info["prev_level_seed"]),
            bool(info["prev_level_complete"]),
        )


@dataclass(frozen=True)
class Estimate:
    """A mean and the standard error of it (NaN where it cannot be known, as from a single episode)."""

    mean: float
    standard_error: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of `values` and its standard error: the sample deviation (n - 1) divided by the root of n.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to estimate a mean from")
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(fmean(values), error)


def normalized(game: str, mode: str, raw: Estimate) -> Estimate:
    """A mean return as (R - min) / (max - min), with the constants of the ProcGen paper."""
    bounds = score_range(game, mode)
    span = bounds.high - bounds.low
    return Estimate((raw.mean - bounds.low) / span, raw.standard_error / span)


def aggregate(scores: Sequence[Estimate]) -> Estimate:
    """The mean over games of independent `scores`: each game counts the same, however many episodes it has.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("no scores to aggregate")
    error = math.sqrt(sum(score.standard_error**2 for score in scores)) / len(scores)
    return Estimate(fmean(score.mean for score in scores), error)


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
        agent: What was evaluated.
        protocol: How it was evaluated.
        scores: One for each game and split.
    """

    agent: AgentInfo
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
            "agent": self.agent.to_json(),
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
