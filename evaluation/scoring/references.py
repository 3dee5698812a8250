"""What a score can be held against: a player who draws actions uniformly, and the agents that come with the suite."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.scoring.results import Estimate, Results
from evaluation.trained import read_card, trained_names

PUBLISHED_STEPS = 25_000_000
"""Of the published agents that play easy games well (Cobbe et al. 2020, arXiv 1912.01588)."""


@dataclass(frozen=True)
class Reference:
    """Known scores.

    Attributes:
        label: whose.
        scores: mean returns by game and split.
    """

    label: str
    scores: dict[tuple[str, str], Estimate]


def random_player(mode: str) -> Reference:
    """Scores of uniformly drawn actions in `mode`; none where they were not measured."""
    file = resources.files("evaluation.report") / "reference" / "random_player.json"
    rows = [row for row in json.loads(file.read_text(encoding="utf-8"))["rows"] if row["mode"] == mode]
    return Reference("random player", _scores(rows))


def trained_agents(mode: str) -> Reference:
    """For each game and split the best score of an agent that comes with the suite and was trained in `mode`."""
    best: dict[tuple[str, str], Estimate] = {}
    for card in map(read_card, trained_names()):
        if card["settings"]["mode"] == mode and not _twisted(card["settings"]):
            for place, score in _scores(card["scores"]).items():
                best[place] = max(score, best.get(place, score), key=lambda estimate: estimate.mean)
    return Reference("trained agents", best)


def references(results: Results) -> list[Reference]:
    """Those who have played any of the same games in the same mode, and as they are: nobody where there is a twist."""
    if results.protocol.twist is not None:
        return []
    mode, games = results.protocol.mode, set(results.protocol.games)
    everyone = (random_player(mode), trained_agents(mode))
    return [reference for reference in everyone if games & {game for game, _ in reference.scores}]


def print_comparison(
    results: Results, others: list[Reference], console: Console, earlier_steps: int = 0
) -> None:
    """Mean returns beside those of `others`, split by split, and what so many steps of training can give.

    `earlier_steps` are those that had made the agent which the run began with.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("game", no_wrap=True)
    splits = results.protocol.levels
    for levels in splits:
        for label in ("this agent", *(other.label for other in others)):
            words = "\n".join([*label.split(), levels.name])
            table.add_column(Text(words), justify="right", no_wrap=True)
    for game in results.protocol.games:
        cells = []
        for levels in splits:
            ours = results.score(game, levels.name).raw
            cells += [ours, *(other.scores.get((game, levels.name)) for other in others)]
        table.add_row(game, *("" if cell is None else f"{cell.mean:.2f}" for cell in cells))
    console.print(table)
    steps = earlier_steps + results.agent.steps
    if steps < PUBLISHED_STEPS / 10:
        console.print(
            f"{steps:,} steps are {100 * steps / PUBLISHED_STEPS:.1g} % of the {PUBLISHED_STEPS:,} after which "
            "published agents play well: scores near a random player's are what to expect in most games.",
            style="dim",
            soft_wrap=True,
        )


def _twisted(settings: dict[str, object]) -> bool:
    return settings.get("twist") is not None


def _scores(rows: list[dict[str, object]]) -> dict[tuple[str, str], Estimate]:
    return {
        (str(row["game"]), str(row["split"])): Estimate(
            float(str(row["mean"])), float(str(row["standard_error"]))
        )
        for row in rows
    }
