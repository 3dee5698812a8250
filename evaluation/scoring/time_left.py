"""How long an evaluation will still take. The longest episodes end last, so counts of episodes do not tell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

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


def steps_left(left: Counts, ages: Counts, mean: float, limit: int) -> tuple[float, float]:
    """How many steps the environments of a game are expected to make: of all together, and of the last one to end.

    An episode in progress is expected to go on for a mean length, whatever its age; of k such episodes, the last one
    for the mean times 1 + 1/2 + ... + 1/k.

    Args:
        left: episodes that each environment has yet to end, the present one included (n,).
        ages: steps of the present one so far (n,).
        mean: length of an episode.
        limit: steps after which an episode is cut off.
    """
    playing = left > 0
    count = int(playing.sum())
    if not count:
        return 0.0, 0.0
    present, following = np.minimum(mean, limit - ages[playing]), left[playing] - 1
    last = min(mean * sum(1 / k for k in range(1, count + 1)), limit - int(ages[playing].min()))
    return float(present.sum() + following.sum() * mean), last + float(following.max()) * mean


class EvaluationProgress:
    """Counts the episodes and steps of an evaluation and reports how far it is.

    Args:
        protocol: what is played; its games go by their numbers.
        report: gets the progress after each step.
        clock: seconds.
    """

    def __init__(
        self, protocol: Protocol, report: Report, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report, self._clock = report, clock
        self._games, self._total = protocol.games, protocol.total_episodes
        self._limits = [GAMES[game].limit(protocol.mode) for game in protocol.games]
        self._played, self._ended = [0] * len(self._games), [0] * len(self._games)  # steps, episodes
        self._steps = 0
        self._samples = deque([(clock(), 0, 0)])  # seconds, steps, and steps of all environments together

    def count(self, game: int, episode: Episode) -> None:
        """An episode has ended."""
        self._ended[game] += 1
        self._played[game] += episode.length

    def step(self, split: str, left: Sequence[Counts], ages: Sequence[Counts]) -> None:
        """A step was made; `left` and `ages` are by game, as for `steps_left`."""
        self._steps += 1
        played, together, last, later = 0, 0.0, 0.0, 0.0
        for game, limit in enumerate(self._limits):
            steps = self._played[game] + int(ages[game].sum())
            mean = mean_length(steps, self._ended[game], limit)
            own, longest = steps_left(left[game], ages[game], mean, limit)
            to_come = self._total // len(self._games) - self._ended[game] - int(left[game].sum())
            played += steps
            together += own + to_come * mean
            last = max(last, longest)
            later = max(later, to_come * mean / len(left[game]))
        seconds = self._seconds(played, together, last + later)
        self._report(Progress(sum(self._ended), self._total, split + self._waiting_for(left), seconds))

    def _seconds(self, played: int, together: float, last: float) -> float | None:
        """The time that so many steps will take.

        A part of the time of a step is for each environment, and a part is the same however few there are. Which is
        larger is not known, so each counts for half.
        """
        self._samples.append((self._clock(), self._steps, played))
        while len(self._samples) > 2 and self._samples[-1][0] - self._samples[1][0] >= WINDOW:
            self._samples.popleft()
        seconds, steps, env_steps = (
            now - then for then, now in zip(self._samples[0], self._samples[-1], strict=True)
        )
        if not (steps and env_steps):
            return None
        return seconds * (together / env_steps + last / steps) / 2

    def _waiting_for(self, left: Sequence[Counts]) -> str:
        """Which episodes the end of a split is waiting for, if they are few."""
        counts = {game: int(counts.sum()) for game, counts in zip(self._games, left, strict=True)}
        if not 0 < sum(counts.values()) <= FEW:
            return ""
        names = [f"{count} episode{'s' * (count > 1)} of {game}" for game, count in counts.items() if count]
        return f", waiting for {', '.join(names)}"
