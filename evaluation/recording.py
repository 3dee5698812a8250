"""Record an agent at play as a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents import Agent
from evaluation.evaluator import Progress, no_progress

DEFAULT_FRAMES = 450
"""Half a minute at ProcGen's human speed."""


@dataclass(frozen=True)
class Trace:
    """What happened in the T frames of a recording of N games; all arrays (T, N).

    Attributes:
        returns: sum of raw rewards of the episode before the frame.
        values: the policy's estimate at the frame.
        actions: chosen at the frame.
        steps: of the episode before the frame.
        levels: seed of the level.
    """

    returns: NDArray[np.float64]
    values: NDArray[np.float32]
    actions: NDArray[np.int64]
    steps: NDArray[np.int64]
    levels: NDArray[np.int64]


def record(
    agent: Agent,
    games: Sequence[str],
    path: str | os.PathLike[str],
    *,
    mode: str = "easy",
    levels: str = "test1",
    frames: int = DEFAULT_FRAMES,
    greedy: bool = True,
    seed: int = 0,
    reset: str | None = None,
    progress: Progress = no_progress,
) -> Trace:
    """Play `games` side by side and write an mp4 to `path`: a grid with return, value and action of each.

    Args:
        agent: as for `evaluate`; it is left as it was.
        games: what to play, one tile each.
        path: whose directory must exist; a file there is replaced once the new one is whole.
        mode: of the games.
        levels: that are drawn: train, test1, test2, test3, all or "A:B".
        frames: length; ProcGen is meant to be watched at 15 frames a second.
        greedy: take the most likely action instead of drawing one.
        seed: of levels and actions.
        reset: reset rule in place of the agent's own.
        progress: called after each frame with numbers of frames.

    Raises:
        UserError: games, mode, levels or reset rule do not exist, or the agent is not for ProcGen.
        OSError: the file cannot be written.
    """
    raise NotImplementedError(Path(path))
