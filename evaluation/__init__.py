"""Score agents on training and unseen levels, print the scores, and record videos.

>>> protocol = Protocol(games=("maze", "bigfish"))
>>> results = evaluate(agent, protocol)                              # doctest: +SKIP
>>> print_table(results)                                             # doctest: +SKIP
>>> record(agent, protocol, Recording("play.mp4"))                   # doctest: +SKIP
"""

from evaluation.progress import Progress, Report, show_progress
from evaluation.recording.options import Recording
from evaluation.recording.record import record
from evaluation.recording.trace import read_trace
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import ALL_SPLITS, Protocol
from evaluation.scoring.results import Episode, Estimate, GameScore, Results, write_results
from evaluation.scoring.shared import evaluate_together
from evaluation.scoring.table import print_table

__all__ = [
    "ALL_SPLITS",
    "Episode",
    "Estimate",
    "GameScore",
    "Progress",
    "Protocol",
    "Recording",
    "Report",
    "Results",
    "evaluate",
    "evaluate_together",
    "print_table",
    "read_trace",
    "record",
    "show_progress",
    "write_results",
]
