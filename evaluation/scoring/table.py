"""Results on the screen and in files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.files import atomic_write
from envs import Levels
from evaluation.agent_info import AgentInfo
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
    if results.protocol.mode == "exploration":
        return Text("the level\nof each game", style="bold")
    where = f"levels {levels.start}-{levels.start + levels.count - 1}" if levels.count else "all levels"
    lines = [levels.name, where, _familiarity(levels, results.agent.training_levels)]
    return Text("\n".join(lines), style="bold")


def _familiarity(levels: Levels, training: Levels | None) -> str:
    """Whether training has shown these levels."""
    if training is None:
        return ""
    end = math.inf if levels.count == 0 else levels.start + levels.count
    training_end = math.inf if training.count == 0 else training.start + training.count
    if training.start <= levels.start and end <= training_end:
        return "trained on"
    return "unseen" if end <= training.start or training_end <= levels.start else "partly unseen"


def _plus_minus(value: Estimate) -> str:
    error = f"{value.standard_error:.2f}" if math.isfinite(value.standard_error) else "?"
    return f"{value.mean:.2f} ± {error}"


def describe(results: Results) -> list[str]:
    """What has to be said beside the scores, in a few lines."""
    agent, protocol = results.agent, results.protocol
    if protocol.every_level:
        counting = "each level of a split once"
    elif protocol.mode == "exploration":
        counting = f"{protocol.episodes} episodes of each game, on its one level"
    else:
        counting = f"{protocol.episodes} episodes of each game and split, levels drawn with replacement"
    chosen = "greedy actions" if protocol.greedy else "sampled actions"
    return [
        f"{agent.policy}, {agent.algorithm}, {agent.steps:,} steps of training; {protocol.mode} mode",
        f"{chosen}; {counting}; seed {protocol.seed}",
        _memory(agent, protocol.reset),
        "return: mean ± standard error, then (return - min) / (max - min); all games: mean of the latter",
    ]


def _memory(agent: AgentInfo, override: str | None) -> str:
    if not agent.recurrent:
        return "no memory, so neither reset rule nor gradient horizon"
    reset = agent.reset if override is None else override
    rule = f"memory reset: {_rule(reset)}"
    if reset != agent.reset:
        rule += f" (trained with: {_rule(agent.reset)})"
    horizon = f"gradient horizon {agent.gradient_horizon} of {agent.rollout_steps} steps"
    return f"{rule}; {horizon}"


def _rule(reset: str) -> str:
    return f"every {reset} steps" if reset.isdigit() else reset


def write_results(results: Results, path: str | os.PathLike[str], checkpoint: str | None = None) -> None:
    """Write everything to `path`, whole or not at all, with the name of the checkpoint that was evaluated.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(Path(path)) as file:
        file.write(json.dumps({"checkpoint": checkpoint, **results.to_json()}, allow_nan=False) + "\n")
