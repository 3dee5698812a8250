"""Score agents on training and unseen levels, print the scores, and record videos.

>>> results = evaluate(agent, Protocol(games=("maze", "bigfish")))   # doctest: +SKIP
>>> print_table(results)                                             # doctest: +SKIP
>>> record(agent, ["maze"], "maze.mp4")                              # doctest: +SKIP
"""

from evaluation.evaluator import Progress, evaluate
from evaluation.progress import show_progress
from evaluation.protocol import ALL_SPLITS, Protocol
from evaluation.recording import DEFAULT_FRAMES, Film, record
from evaluation.results import GameScore, Results
from evaluation.rollouts import Episode
from evaluation.scores import Estimate
from evaluation.table import print_table, write_json
from evaluation.trace import Trace, read_trace

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
