"""Results on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs import Levels, parse_levels
from evaluation.agent_info import familiarity
from evaluation.scoring.results import Estimate, GameScore, Results

_UNLIMITED = 10_000
_GAME_COLUMN, _SPLIT_COLUMN = 11, 23  # at most, in characters


def print_table(results: Results, console: Console | None = None) -> None:
    """Print games against splits: raw mean ± standard error, normalised score, and their mean over games.

    Splits that do not fit beside one another on the terminal are continued below.
    """
    console = console if console is not None else Console(highlight=False)
    if not console.is_terminal:  # a file has no edge at which something would have to be cut off
        console = Console(file=console.file, width=_UNLIMITED, highlight=False)
    splits = results.protocol.levels
    beside = max(1, (console.width - _GAME_COLUMN) // _SPLIT_COLUMN)
    for first in range(0, len(splits), beside):
        console.print(make_table(results, splits[first : first + beside]))
    for line in describe(results):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def make_table(results: Results, splits: Sequence[Levels]) -> Table:
    """The table of some splits."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("game", "all games", no_wrap=True)
    for levels in splits:
        total = _plus_minus(results.aggregate(levels.name))
        table.add_column(_header(levels, results), total, justify="right", no_wrap=True)
    for game in results.protocol.games:
        scores = [results.score(game, levels.name) for levels in splits]
        table.add_row(game, *map(_cell, scores))
    return table


def _cell(score: GameScore) -> Text:
    return Text.assemble(_plus_minus(score.raw), (f"  {score.normalized.mean:6.3f}", "cyan"))


def _header(levels: Levels, results: Results) -> Text:
    mode, training = results.protocol.mode, results.agent.training_levels
    if mode == "exploration":
        return Text("the level\nof each game", style="bold")
    where = f"levels {levels.start}-{levels.start + levels.count - 1}" if levels.count else "all levels"
    shown = "" if training is None else familiarity(levels, parse_levels(training, mode))
    return Text(f"{levels.name}\n{where}\n{shown}", style="bold")


def _plus_minus(value: Estimate) -> str:
    error = f"{value.standard_error:.2f}" if math.isfinite(value.standard_error) else "?"
    return f"{value.mean:.2f} ± {error}"


def describe(results: Results) -> list[str]:
    """What has to be said beside the scores, in a few lines."""
    agent, protocol = results.agent, results.protocol
    return [
        f"{agent.policy}, {agent.algorithm}, {agent.steps:,} steps of training; {protocol.mode} mode",
        f"{protocol.text}; seed {protocol.seed}",
        agent.memory_text(protocol.reset),
        "return: mean ± standard error, then (return - min) / (max - min); all games: mean of the latter",
    ]
