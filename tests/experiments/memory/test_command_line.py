"""``python train.py memory``: cells are made once, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from experiments.memory.command_line import main, overview
from experiments.memory.results import FILE, Results
from experiments.memory.tasks import TASKS

TINY = (
    "short --task cue-5 copy --policy lstm feedforward --match none --core.hidden 4 --updates 2 --streams 2"
).split()


def command(out: Path, *more: str) -> list[str]:
    return [*TINY, "--out", str(out), *more]


def test_cells_are_made_once_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path / "out")) == 0
    first = capsys.readouterr().out
    assert "4 cells, 0 of them made before" in first
    assert "4/4  copy, feedforward, seed 0: " in first
    assert first.count("| lstm | ") == 2
    lines = (tmp_path / "out" / FILE).read_text()
    assert (tmp_path / "out" / "memory.md").exists()
    assert main(command(tmp_path / "out", "--seed", "0", "3", "--only", "feed*")) == 0
    second = capsys.readouterr().out
    assert "4 cells, 2 of them made before" in second
    assert (tmp_path / "out" / FILE).read_text().startswith(lines)
    assert len(Results(tmp_path / "out").outcomes) == 6


def test_several_processes_make_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "cue-5"]
    main(command(tmp_path / "one", *words))
    main(command(tmp_path / "two", "--jobs", "2", *words))
    outcomes = [
        {cell: (outcome.windows, outcome.test) for cell, outcome in Results(tmp_path / name).outcomes.items()}
        for name in ("one", "two")
    ]
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 2


def test_a_dry_run_lists_the_cells_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "out", "--dry-run", "--reset", "episode", "3")) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "cue-5, lstm, reset episode, seed 0: missing",
        "cue-5, lstm, reset 3, seed 0: missing",
    ]
    assert not (tmp_path / "out").exists()


def test_without_words_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == overview() + "\n"
    assert all(f"  {name} " in overview() for name in (*TASKS, "short"))
    with pytest.raises(SystemExit):
        main(["short", "--help"])
    assert "--core.sharpness X ..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--updates", "2"], "name one grid before the options: "),
        (["short", "long"], "name one grid before the options: "),
        (["shrt"], "unknown grid 'shrt': did you mean short"),
        (["short", "--sed", "1"], r"unknown option '--sed': did you mean --seed\? "),
        (["short", "--task", "cue"], "unknown task 'cue'"),
        (
            ["short", "--policy", "lstm", "--core.heads", "2"],
            "core.heads is a setting of none of the cores: lstm",
        ),
        (["short", "--policy", "srwm", "--core.width", "9"], "core width 9 is not a multiple of its 8 heads"),
        (["short", "--jobs", "0"], "--jobs is 0: give 1 or more"),
        (["short", "--only", "x*"], r"--only x\* matches no row"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        main([*words, "--out", str(tmp_path / "out")] if len(words) > 1 else words)
    assert not (tmp_path / "out").exists()
