"""Histories of agents whose training was done in several runs."""

from __future__ import annotations

import json

import pytest

from agents import read_checkpoint
from evaluation.loading import find_checkpoint
from evaluation.trained import read_card, trained_names
from evaluation.trained.history import History, from_plain, history_of

FIRST = History(100, 0.5, ("a",), (), {"steps": (50, 100), "maze": (None, 2.0), "heist": (1.0, 1.5)})
SECOND = History(40, 0.25, ("b", "c"), (), {"steps": (20, 40), "maze": (2.5, 3.0), "miner": (None, 4.0)})


def test_runs_add_up() -> None:
    both = FIRST.followed_by(SECOND)
    assert both == History(
        140,
        0.75,
        ("a", "b", "c"),
        (100,),
        {
            "steps": (50, 100, 120, 140),
            "maze": (None, 2.0, 2.5, 3.0),
            "miner": (
                None,
                None,
                None,
                4.0,
            ),  # not played in the first; heist is not what this agent plays now
        },
    )
    third = History(10, 0.0, ("d",), (), {"steps": (10,), "maze": (1.0,)})
    grown = both.followed_by(third)
    assert (grown.steps, grown.restarts, grown.curve["steps"][-1]) == (150, (100, 140), 150)
    assert FIRST.followed_by(SECOND.followed_by(third)) == grown


def test_hours_that_are_not_known_stay_so() -> None:
    assert History(7).followed_by(SECOND).hours is None


@pytest.mark.parametrize("history", [FIRST, FIRST.followed_by(SECOND)])
def test_a_history_survives_json(history: History) -> None:
    assert from_plain(json.loads(json.dumps(history.plain()))) == history


@pytest.mark.parametrize("name", trained_names())
def test_agents_that_come_with_the_suite_have_one(name: str) -> None:
    history, card = history_of(name), read_card(name)
    assert (history.steps, history.hours) == (card["steps"], card["hours"])
    assert history.steps == read_checkpoint(find_checkpoint(name))["run"]["num_timesteps"]
    lengths = {len(values) for values in history.curve.values()}
    assert len(lengths) == 1
    assert 0.95 * history.steps < (history.curve["steps"][-1] or 0) <= history.steps
