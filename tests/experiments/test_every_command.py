from __future__ import annotations

from pathlib import Path

from benchmarks.commands import try_commands


def test_random_command_lines_run_or_are_refused_in_one_line(tmp_path: Path) -> None:
    tally = try_commands(20, tmp_path)
    assert tally.tried == tally.ran + tally.refused >= 20
    assert min(tally.ran, tally.refused) >= 3
