from __future__ import annotations

from typing import Any

import pytest

from envs import parse_levels
from evaluation import Protocol


def test_the_paper_s_final_test_is_the_default() -> None:
    protocol = Protocol(games=("maze", "bigfish"))
    assert protocol.problems() == []
    assert [(levels.start, levels.count) for levels in protocol.levels] == [
        (0, 200),
        (1000, 200),
        (1200, 200),
        (1400, 200),
    ]
    assert (protocol.episodes, protocol.greedy, protocol.every_level) == (200, True, False)
    assert protocol.total_episodes == 2 * 4 * 200


def test_every_level_counts_levels() -> None:
    protocol = Protocol(
        games=("maze",), mode="memory", splits=("train", "3:10"), every_level=True, episodes=7
    )
    assert protocol.total_episodes == 500 + 7
    assert protocol.num_envs_on(parse_levels("3:10")) == 7
    assert protocol.num_envs_on(parse_levels("train", "memory")) == protocol.num_envs


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"games": ()}, "no games"),
        ({"games": ("bigfsh",)}, "did you mean bigfish"),
        ({"games": ("maze", "maze")}, "listed 2 times"),
        ({"games": ("bigfish",), "mode": "memory"}, "no memory mode"),
        ({"mode": "esy"}, "did you mean easy"),
        ({"splits": ()}, "no splits"),
        ({"splits": ("tran",)}, "did you mean train"),
        ({"splits": ("9:3",)}, "empty"),
        ({"splits": ("3:9", "03:9")}, "more than once"),
        ({"episodes": 0}, "episodes is 0"),
        ({"num_envs": -1}, "num_envs is -1"),
        ({"seed": -1}, "seed -1"),
        ({"reset": "sometimes"}, "unknown reset rule"),
        ({"every_level": True, "splits": ("all",)}, "no end"),
        ({"mode": "exploration"}, "give one split"),
        ({"mode": "exploration", "splits": ("train",), "every_level": True}, "leave --every-level out"),
    ],
)
def test_each_mistake_is_found(wrong: dict[str, Any], part: str) -> None:
    problems = Protocol(**{"games": ("maze",), **wrong}).problems()
    assert len(problems) == 1
    assert part in problems[0]


def test_all_mistakes_are_found_at_once() -> None:
    protocol = Protocol(games=("bigfsh",), splits=("a", "b"), episodes=0, num_envs=0, reset="x")
    assert len(protocol.problems()) == 6
