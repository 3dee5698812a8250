"""Scores beside those of a random player and of trained agents."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console

from envs import GAMES
from evaluation import Episode, GameScore, Protocol, Results
from evaluation.agent_info import AgentInfo
from evaluation.scoring.references import (
    Reference,
    print_comparison,
    random_player,
    references,
    trained_agents,
)
from evaluation.scoring.results import Estimate
from evaluation.trained import read_card, trained_names

PROTOCOL = Protocol(games=("maze", "bigfish"), splits=("train", "test1"), episodes=1)
AGENT = AgentInfo("srwm", "impala", 120_000, True, "episode", 50, 50, "0:200")


def compared(agent: AgentInfo, earlier_steps: int = 0) -> list[list[str]]:
    scores = tuple(
        GameScore(game, "easy", levels, (Episode(3.0 if game == "maze" else 7.0, 5, 0, False),))
        for levels in PROTOCOL.levels
        for game in PROTOCOL.games
    )
    known = {("maze", "train"): Estimate(4.5, 0.1), ("maze", "test1"): Estimate(4.25, 0.1)}
    file = io.StringIO()
    others = [Reference("random player", known)]
    console = Console(file=file, width=200)
    print_comparison(Results(agent, PROTOCOL, scores), others, console, earlier_steps)
    return [line.split() for line in file.getvalue().splitlines()]


def test_scores_stand_beside_what_is_known() -> None:
    lines = compared(AGENT)
    assert ["maze", "3.00", "4.50", "3.00", "4.25"] in lines
    assert ["bigfish", "7.00", "7.00"] in lines  # nothing is known of it
    assert [
        ["this", "random"] * 2,
        ["agent", "player"] * 2,
        ["game", *["train"] * 2, *["test1"] * 2],
    ] == lines[1:4]


def test_nobody_s_scores_stand_beside_those_of_a_game_with_a_twist() -> None:
    assert [other.label for other in references(Results(AGENT, PROTOCOL, ()))][:1] == ["random player"]
    assert references(Results(AGENT, replace(PROTOCOL, twist="cue 16"), ())) == []


def test_what_so_few_steps_can_give_is_said_of_few_steps_alone() -> None:
    words = ["120,000", "steps", "are", "0.5", "%"]
    assert any(line[:5] == words for line in compared(AGENT))
    assert any(line[:5] == ["1,120,000", "steps", "are", "4", "%"] for line in compared(AGENT, 1_000_000))
    assert not any("published" in line for line in compared(replace(AGENT, steps=30_000_000)))
    assert not any("published" in line for line in compared(AGENT, 30_000_000))


def test_a_random_player_was_measured_on_every_easy_game() -> None:
    scores = random_player("easy").scores
    assert {(game, split) for game in GAMES for split in ("train", "test1")} <= set(scores)
    assert all(math.isfinite(score.mean) and score.standard_error > 0 for score in scores.values())
    assert random_player("hard").scores == {}


def test_random_players_score_as_the_paper_lets_expect() -> None:
    """A game's normalised score begins about where a player who knows nothing ends (Cobbe et al. 2020)."""
    scores = random_player("easy").scores
    assert 0.5 < scores["bigfish", "train"].mean < 1.5
    assert -4.0 < scores["fruitbot", "train"].mean < -1.0
    assert 1.0 < scores["starpilot", "train"].mean < 3.0


def test_the_best_trained_agent_of_each_game_counts() -> None:
    """Of those who were trained on the game as it is: a cue that is paid for makes another game of it."""
    cards = [read_card(name) for name in trained_names()]
    plain = [card for card in cards if card["settings"].get("twist") is None]
    assert len(plain) < len(cards)
    for mode in ("easy", "memory"):
        rows = [row for card in plain if card["settings"]["mode"] == mode for row in card["scores"]]
        best: dict[tuple[str, str], float] = {}
        for row in rows:
            place = row["game"], row["split"]
            best[place] = max(row["mean"], best.get(place, row["mean"]))
        assert best
        assert {place: score.mean for place, score in trained_agents(mode).scores.items()} == best
    assert trained_agents("hard").scores == {}
