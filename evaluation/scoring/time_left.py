"""How long an evaluation will still take. The longest episodes end last, so counts of episodes do not tell."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from envs import GAMES
from evaluation.progress import Progress, Report
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import Episode

WINDOW = 5.0
"""Seconds over which speed is measured: it falls when few environments are left that play."""
FEW = 10
"""So many episodes that are waited for are named."""
_PRIOR_STEPS = 200
"""The length of an episode, as long as none of its game has ended."""

Counts = NDArray[np.int64]


def mean_length(steps: int, ended: int, limit: int) -> float:
    """The expected length of an episode, if at each step it is as likely to end as at any other.

    Args:
        steps: that were played, those of unfinished episodes too; without them the longest would not count.
        ended: episodes that have ended.
        limit: steps after which an episode is cut off.
    """
    return min((steps + _PRIOR_STEPS) / (ended + 1), limit)


def steps_left(left: Counts, ages: Counts, mean: float, limit: int) -> float:
    """How many steps some environments will still make.

    Args:
        left: episodes that each has yet to end, the present one included (n,).
        ages: steps of the present one so far (n,).
        mean: length of an episode; a present one is expected to last as long again, whatever its age.
        limit: steps after which an episode is cut off.
    """
    playing = left > 0
    return float((np.minimum(mean, limit - ages) + (left - 1) * mean)[playing].sum())


class EvaluationProgress:
    """Counts the episodes and steps of an evaluation and reports how far it is.

    Args:
        protocol: what is played.
        report: gets the progress after each step.
        clock: seconds.
    """

    def __init__(
        self, protocol: Protocol, report: Report, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report, self._clock = report, clock
        self._total = protocol.total_episodes
        self._limits = {game: GAMES[game].limit(protocol.mode) for game in protocol.games}
        self._steps: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._samples = deque([(clock(), 0)])

    def count(self, game: str, episode: Episode) -> None:
        """An episode has ended."""
        self._ended[game] += 1
        self._steps[game] += episode.length

    def step(self, split: str, left: Mapping[str, Counts], ages: Mapping[str, Counts]) -> None:
        """A step was made; `left` and `ages` are by game, as for `steps_left`."""
        played, remaining = 0, 0.0
        for game, limit in self._limits.items():
            steps = self._steps[game] + int(ages[game].sum())
            mean = mean_length(steps, self._ended[game], limit)
            later = self._total // len(self._limits) - self._ended[game] - int(left[game].sum())
            remaining += steps_left(left[game], ages[game], mean, limit) + later * mean
            played += steps
        rate = self._rate(played)
        seconds = remaining / rate if rate > 0 else None
        what = split + _waiting_for(left)
        self._report(Progress(self._ended.total(), self._total, what, seconds))

    def _rate(self, steps: int) -> float:
        """Steps per second of late; 0 where nothing is known."""
        self._samples.append((self._clock(), steps))
        while len(self._samples) > 2 and self._samples[-1][0] - self._samples[1][0] >= WINDOW:
            self._samples.popleft()
        (began, before), (now, after) = self._samples[0], self._samples[-1]
        return (after - before) / (now - began) if now > began else math.nan


def _waiting_for(left: Mapping[str, Counts]) -> str:
    """Which episodes the end of a split is waiting for, if they are few."""
    counts = {game: int(counts.sum()) for game, counts in left.items() if counts.any()}
    if not 0 < sum(counts.values()) <= FEW:
        return ""
    names = [f"{count} episode{'s' * (count > 1)} of {game}" for game, count in counts.items()]
    return f", waiting for {', '.join(names)}"
