"""Scores beside those of a random player and of trained agents."""

from __future__ import annotations

import math

from envs import GAMES
from evaluation.scoring.references import random_player


def test_a_random_player_was_measured_on_every_game() -> None:
    for mode in ("easy", "hard"):
        scores = random_player(mode).scores
        assert set(scores) == {
            (game, split)
            for game, facts in GAMES.items()
            if mode in facts.modes
            for split in ("train", "test1")
        }
        assert all(math.isfinite(score.mean) and score.standard_error > 0 for score in scores.values())
    assert random_player("memory").scores == {}


def test_random_players_score_as_the_paper_lets_expect() -> None:
    """A game's normalised score begins about where a player who knows nothing ends (Cobbe et al. 2020)."""
    scores = random_player("easy").scores
    assert 0.5 < scores["bigfish", "train"].mean < 1.5
    assert -4.0 < scores["fruitbot", "train"].mean < -1.0
    assert 1.0 < scores["starpilot", "train"].mean < 3.0
