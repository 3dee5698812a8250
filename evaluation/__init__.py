"""Score agents on training and unseen levels, print the scores, and record videos.

>>> results = evaluate(agent, Protocol(games=("maze", "bigfish")))   # doctest: +SKIP
>>> print_table(results)                                             # doctest: +SKIP
>>> record(agent, ["maze"], "maze.mp4")                              # doctest: +SKIP
"""

from evaluation.scoring.evaluate import Progress, evaluate
from evaluation.progress import show_progress
from evaluation.scoring.protocol import ALL_SPLITS, Protocol
from evaluation.recording.record import DEFAULT_FRAMES, Film, record
from evaluation.scoring.results import GameScore, Results
from evaluation.play import Episode
from evaluation.scoring.scores import Estimate
from evaluation.scoring.table import print_table, write_json
from evaluation.recording.trace import Trace, read_trace

__all__ = [
    "ALL_SPLITS",
    "DEFAULT_FRAMES",
    "Episode",
    "Estimate",
    "Film",
    "GameScore",
    "Progress",
    "Protocol",
    "Results",
    "Trace",
    "evaluate",
    "print_table",
    "read_trace",
    "record",
    "show_progress",
    "write_json",
]
