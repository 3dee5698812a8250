from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.commands import try_commands
from benchmarks.odd_commands import command_of
from benchmarks.odd_words import fair
from common.config import assign, options
from common.config import problems as config_problems
from common.errors import UserError
from evaluation import command_line as scoring
from evaluation.report import command_line as report
from evaluation.watch import command_line as watch
from experiments import launch
from experiments.command_line import parse
from records.config import TrainConfig


def test_random_command_lines_run_or_are_refused_in_one_line(tmp_path: Path) -> None:
    tally = try_commands(20, tmp_path)
    assert tally.tried == tally.ran + tally.refused >= 20
    assert min(tally.ran, tally.refused) >= 3


def end_of(words: list[str]) -> str | None:
    """What words are refused with; None if they are understood."""
    try:
        parse(words)
    except UserError as error:
        return str(error)
    return None


def test_words_of_strangers_are_understood_or_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are known before anything is made, so that understanding them is all that has to be tried here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    drawn = [command_of(1, number, tmp_path / "files") for number in range(60)]
    ends = [end_of(command.words) for command in drawn if command.main is launch.main]
    assert all(end is None or (end.isprintable() and len(end) <= 2100) for end in ends)
    assert 0.3 < ends.count(None) / len(ends) < 0.8  # words that are odd and right
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


@pytest.mark.parametrize(
    "settings", [TrainConfig(), scoring.Options(""), watch.Options(""), report.Options()]
)
def test_values_that_are_called_right_are_taken_by_themselves(settings: Any) -> None:
    random = Random(0)
    # Those of sequences are right only together.
    known = [option for option in options(settings) if not option.name.startswith(("sequence.", "tasks."))]
    for option in known:
        values, problems = fair(option, random), list[str]()
        value = values if option.type.is_tuple else (values or [True])[0]
        taken = assign(settings, {option.name: value}, problems)
        assert not problems + config_problems(taken), (option.name, value)
