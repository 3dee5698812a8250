"""Messages of viewers: what is understood, and what is refused."""

from __future__ import annotations

import pytest

from common.errors import UserError
from evaluation.watch.controls import (
    CONTROLS,
    ChooseGames,
    ChooseLevels,
    Intervene,
    Play,
    Speed,
    Step,
    View,
    parse_control,
)


def test_messages_become_controls() -> None:
    assert parse_control({"type": "play", "playing": False}) == Play(False)
    assert parse_control({"type": "step"}) == Step()
    assert parse_control({"type": "speed", "steps_per_second": 15}) == Speed(15.0)
    assert parse_control({"type": "speed", "steps_per_second": None}) == Speed(None)
    assert parse_control({"type": "games", "games": ["maze"]}) == ChooseGames(("maze",))
    assert parse_control({"type": "levels", "split": "train"}) == ChooseLevels("train", None)
    assert parse_control({"type": "intervene", "kind": "reset", "span": 5, "side": 1}) == Intervene(
        "reset", 5, 1
    )
    assert parse_control({"type": "view", "eye": True}) == View(eye=True)
    assert set(CONTROLS) >= {"restart", "actions", "look", "seen"}


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ("play", "must be an object"),
        ({}, "unknown message type"),
        ({"type": "plya"}, "did you mean play"),
        ({"type": 3}, "unknown message type"),
        ({"type": ["play"]}, "unknown message type"),
        ({"type": "x" * 10_000}, "unknown message type"),
        ({"type": "play"}, "lacks playing"),
        ({"type": "play", "playing": 1}, "play.playing must be true or false"),
        ({"type": "play", "playing": True, "fast": 1}, "unknown field of 'play' 'fast'"),
        ({"type": "play", "playing": None}, "must be true or false"),
        ({"type": "speed", "steps_per_second": "15"}, "must be a number"),
        ({"type": "speed", "steps_per_second": True}, "must be a number"),
        ({"type": "speed", "steps_per_second": 0}, "give 0.1 or more"),
        ({"type": "speed", "steps_per_second": 1e9}, "give at most 1,000"),
        ({"type": "speed", "steps_per_second": float("nan")}, "must be a number or none"),
        ({"type": "games", "games": "maze"}, "a list, each a text"),
        ({"type": "games", "games": [1]}, "a list, each a text"),
        ({"type": "look", "tick": 1.5}, "whole number"),
        ({"type": "levels", "split": 3}, "must be a text"),
        ({"type": "view", "game": True}, "whole number"),
    ],
)
def test_others_are_refused_with_a_reason(message: object, part: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_control(message)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 400
