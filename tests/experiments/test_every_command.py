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


def test_words_of_strangers_are_understood_or_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are known before anything is made, so that understanding them is all that has to be tried here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    refused = understood = 0
    for number in range(60):
        command = command_of(1, number, tmp_path / "files")
        if command.name not in ("train", "config", "resume"):
            continue
        try:
            parse(command.words)
            understood += 1
        except UserError as error:
            refused += 1
            assert str(error).isprintable()
            assert len(str(error)) <= 2100
        except SystemExit as leaving:  # -h
            assert not leaving.code
    assert min(refused, understood) >= 3
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
