"""What an evaluation found: scores as they are shown, written, read again and compared in reports."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common import config
from common.files import atomic_write
from envs import Levels, score_range
from evaluation.agent_info import AgentInfo
from evaluation.scoring.protocol import Protocol


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        score: The sum of the raw rewards.
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


_EPISODE_COLUMNS = ("return", "length", "level", "complete")
"""What JSON calls the fields of `Episode`."""


@dataclass(frozen=True)
class Estimate:
    """A mean and the standard error of it (NaN where it cannot be known, as from a single episode)."""

    mean: float
    standard_error: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of `values` (one or more) and its standard error: the sample deviation (n - 1) by the root of n."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(fmean(values), error)


def normalized(game: str, mode: str, raw: Estimate) -> Estimate:
    """A mean return as (R - min) / (max - min), with the constants of the ProcGen paper."""
    bounds = score_range(game, mode)
    span = bounds.high - bounds.low
    return Estimate((raw.mean - bounds.low) / span, raw.standard_error / span)


def aggregate(scores: Sequence[Estimate]) -> Estimate:
    """The mean over games of independent `scores`: each game counts the same, however many episodes it has."""
    mean = fmean(score.mean for score in scores)
    return Estimate(mean, math.hypot(*(score.standard_error for score in scores)) / len(scores))


@dataclass(frozen=True)
class GameScore:
    """The episodes of one game on one split."""

    game: str
    mode: str
    levels: Levels
    episodes: tuple[Episode, ...]

    @cached_property
    def raw(self) -> Estimate:
        """Mean episode return (raw rewards)."""
        return estimate([episode.score for episode in self.episodes])

    @property
    def normalized(self) -> Estimate:
        """Mean episode return on ProcGen's scale from 0 (trivial) to 1 (best possible)."""
        return normalized(self.game, self.mode, self.raw)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values, the episodes by column."""
        columns = zip(*map(astuple, self.episodes), strict=True)
        return {
            "game": self.game,
            "split": self.levels.name,
            "level_start": self.levels.start,
            "level_count": self.levels.count,
            "raw": _estimate_json(self.raw),
            "normalized": _estimate_json(self.normalized),
            "episodes": dict(zip(_EPISODE_COLUMNS, map(list, columns), strict=True)),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], mode: str) -> GameScore:
        """The score in `mode` that `to_json` wrote."""
        levels = Levels(data["split"], data["level_start"], data["level_count"])
        columns = (data["episodes"][name] for name in _EPISODE_COLUMNS)
        return cls(data["game"], mode, levels, tuple(map(Episode, *columns)))


@dataclass(frozen=True)
class Results:
    """Scores of one policy, for each game and split of a protocol."""

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
            "agent": asdict(self.agent),
            "protocol": self.protocol.to_json(),
            "aggregate": {split: _estimate_json(self.aggregate(split)) for split in splits},
            "scores": [score.to_json() for score in self.scores],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """The results that `to_json` wrote.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is not what it should be.
        """
        protocol = config.read(Protocol(()), data["protocol"], [])
        scores = tuple(GameScore.from_json(score, protocol.mode) for score in data["scores"])
        return cls(AgentInfo(**data["agent"]), protocol, scores)


def _estimate_json(value: Estimate) -> dict[str, float | None]:
    return {key: number if math.isfinite(number) else None for key, number in asdict(value).items()}


def write_results(results: Results, path: str | os.PathLike[str], checkpoint: str | None = None) -> None:
    """Write everything to `path`, whole or not at all, with the name of the checkpoint that was evaluated.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_write(Path(path)) as file:
        file.write(json.dumps({"checkpoint": checkpoint, **results.to_json()}, allow_nan=False) + "\n")
