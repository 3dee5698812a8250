"""Whole episodes, chosen by their returns."""

from __future__ import annotations

import numpy as np

from evaluation.recording.replay import Replay, choose_replay


def test_best_worst_and_median() -> None:
    replays = [
        Replay("maze", level, np.zeros(1, dtype=np.int64), score)
        for level, score in enumerate([3, 9, 1, 9, 5])
    ]
    assert [choose_replay(replays, which).level for which in ("best", "worst", "median")] == [1, 2, 4]
    assert choose_replay(replays[:2], "median").level == 0
