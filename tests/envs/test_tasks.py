from __future__ import annotations

import pytest

from common.errors import UserError
from envs import GAMES, MODES, SPLITS, Task, parse_task


@pytest.mark.parametrize(
    ("text", "task", "shown"),
    [
        ("climber", Task("climber"), "climber"),
        ("climber/hard", Task("climber", "hard"), "climber/hard"),
        ("climber/easy/3:4", Task("climber", "easy", "3:4"), "climber/easy/3:4"),
        (" maze/memory/test1 ", Task("maze", "memory", "test1"), "maze/memory/test1"),
        ("climber/easy/train", Task("climber"), "climber"),
    ],
)
def test_text_forms(text: str, task: Task, shown: str) -> None:
    assert parse_task(text) == task
    assert str(task) == shown


def test_what_a_text_leaves_out_follows_the_run() -> None:
    assert parse_task("maze", "memory", "0:9") == Task("maze", "memory", "0:9")
    assert parse_task("maze/hard", "memory", "0:9") == Task("maze", "hard", "0:9")


def test_every_task_is_read_back() -> None:
    tasks = [
        Task(game.name, mode, levels) for game in GAMES.values() for mode in game.modes for levels in SPLITS
    ]
    assert len(tasks) > len(GAMES) * len(MODES) / 2
    assert [parse_task(str(task)) for task in tasks] == tasks
    assert len(set(map(str, tasks))) == len(tasks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("climbr", "task climbr: unknown game 'climbr': did you mean climber?"),
        ("climber/memory", "task climber/memory: game 'climber' has no memory mode"),
        ("climber/easy/4:3", "levels '4:3' are empty"),
        ("climber/easy/3:4/5", "is not of the form"),
        ("climber//3:4", "is not of the form"),
        ("", "is not of the form"),
    ],
)
def test_what_is_no_task(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_task(text)
    assert message in str(caught.value)
