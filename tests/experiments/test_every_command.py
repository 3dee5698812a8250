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
    understood, refusals, codes = 0, list[str](), list[object]()
    for number in range(60):
        command = command_of(1, number, tmp_path / "files")
        if command.name not in ("train", "config", "resume"):
            continue
        try:
            parse(command.words)
            understood += 1
        except UserError as error:
            refusals.append(str(error))
        except SystemExit as leaving:  # -h
            codes.append(leaving.code)
    assert min(len(refusals), understood) >= 3
    assert not any(codes)
    assert all(text.isprintable() and len(text) <= 2100 for text in refusals)
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
