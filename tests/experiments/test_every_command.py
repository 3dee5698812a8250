from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.commands import try_commands
from benchmarks.odd_commands import command_of
from common.errors import UserError
from experiments.command_line import parse


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
    ends = [end_of(command.words) for command in drawn if command.name in ("train", "config", "resume")]
    assert all(end is None or (end.isprintable() and len(end) <= 2100) for end in ends)
    assert None in ends  # words that are odd and right
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
