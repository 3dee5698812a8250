from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from common.cli import Flag, Shown, parse_options, run_command, run_with_options, with_subcommands
from common.config import INLINE, OneOf
from common.errors import RunError, UserError


def raising(error: BaseException) -> int:
    raise error


def test_the_exit_code_of_main_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: 143) == 143
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("unknown game 'x'"), "error: unknown game 'x'\n"),
        (UserError("two\n  lines"), "error: two lines\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            "error: runs/x: No space left on device\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "error: Permission denied\n"),
        (OSError("could not write"), "error: could not write\n"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: raising(error)) == 2
    assert capsys.readouterr() == ("", line)


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: raising(ZeroDivisionError()))


def test_interruption_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_who_leaves_is_no_error() -> None:
    script = (
        "import sys\n"
        "from common.cli import run_command\n"
        "sys.exit(run_command(lambda: [print('x' * 1000) for _ in range(1000)] and 0))"
    )
    done = subprocess.run(
        f'{sys.executable} -c "$SCRIPT" | head -n 1 | wc -l',
        shell=True,
        env={"SCRIPT": script, "PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "1"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code"), [(["other", "a", "--b"], 7), (["others"], 1), (["x", "other"], 1), ([], 1)]
)
def test_the_first_word_chooses_the_command(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another_command.py").write_text(
        "def main(words):\n    assert words == ['a', '--b']\n    return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", *words])
    assert with_subcommands(lambda: 1, {"other": "another_command"})() == code


def test_a_run_that_failed_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise RunError("not finite: the loss;\nsaved x.ckpt")

    assert run_command(fail) == 1
    assert capsys.readouterr().err == "error: not finite: the loss; saved x.ckpt\n"


@dataclass(frozen=True)
class Film:
    """Films.

    Attributes:
        video: to write.
        seconds: of it.
    """

    video: Annotated[str | None, Shown("FILE", "none")] = None
    seconds: float = 2.0


@dataclass(frozen=True)
class Scoring:
    """Score something that was
    trained.

    Attributes:
        subject: a run, 100 % of it.
        games: to play.
        greedy: no chance.
        table: whether to print it.
        style: of the table.
        max_steps: of an episode.
        film: not shown.
    """

    subject: Annotated[str, Shown("RUN")]
    games: Annotated[tuple[str, ...], Shown("GAME ...", "all of them")] = ()
    greedy: Flag = False
    table: bool = True
    style: Annotated[str, OneOf(("plain", "wide"))] = "plain"
    max_steps: int | None = None
    film: Annotated[Film, INLINE] = field(default_factory=Film)


@dataclass(frozen=True)
class Drawing:
    """Draw curves."""

    curves: tuple[Path, ...]
    out: Path
    width: float = 1.0


def score(line: str) -> Scoring:
    return parse_options(Scoring, line.split(), "score", "subject")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run", Scoring("run")),
        ("--max-steps 1e3 run", Scoring("run", max_steps=1000)),
        ("run --max-steps=none --games a b --greedy", Scoring("run", ("a", "b"), greedy=True)),
        ("run --no-table --seconds 3", Scoring("run", table=False, film=Film(seconds=3.0))),
        ("run --no-table --table --games", Scoring("run")),
        ("run --video -1", Scoring("run", film=Film("-1"))),
    ],
)
def test_options_are_the_fields(line: str, expected: Scoring) -> None:
    assert score(line) == expected


def test_several_words_without_an_option() -> None:
    words = ["--out", "c.png", "a", "b", "--width", "2"]
    expected = Drawing((Path("a"), Path("b")), Path("c.png"), 2.0)
    assert parse_options(Drawing, words, "draw", "curves") == expected


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("", ["name a run: score RUN"]),
        ("a b", ["unexpected b: name one run; see score --help"]),
        (
            "run --gamess a --fil x",
            ["2 problems", "unknown option '--gamess': did you mean --games?", "'--fil'"],
        ),
        ("run --max-steps", ["argument --max-steps: expected one argument; see score --help"]),
        ("run --max-steps x", ["--max-steps is 'x': give a whole number or none"]),
        (
            "run --seconds x --tabel",
            ["2 problems", "--seconds is 'x': give a number", "unknown option '--tabel'"],
        ),
        ("run --greedy=yes", ["argument --greedy: ignored explicit argument 'yes'"]),
        ("run --gam a", ["unknown option '--gam'"]),
    ],
)
def test_all_mistakes_are_one_line(line: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        score(line)
    for part in parts:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_needed_must_be_there() -> None:
    with pytest.raises(
        UserError, match=r"2 problems: name a path: draw PATH \.\.\.; --out is missing: give a path"
    ):
        parse_options(Drawing, [], "draw", "curves")


def test_help_shows_everything_there_is_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        score("--help")
    assert raised.value.code == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    for line in (
        "usage: score RUN [OPTIONS]",
        "Score something that was trained.",
        "a run, 100 % of it.",
        "--games GAME ... to play (default: all of them)",
        "--greedy no chance",
        "--table / --no-table whether to print it (default: yes)",
        "--style plain|wide of the table (default: plain)",
        "--max-steps N|none of an episode (default: none)",
        "--video FILE to write (default: none)",
        "--seconds X of it (default: 2)",
    ):
        assert line in lines, line


def test_a_whole_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Scoring] = []
    monkeypatch.setattr(sys, "argv", ["score.py", "run", "--greedy"])
    assert run_with_options(Scoring, seen.append, "score", "subject") == 0
    assert seen == [Scoring("run", greedy=True)]
    monkeypatch.setattr(sys, "argv", ["score.py"])
    assert run_with_options(Scoring, seen.append, "score", "subject") == 2
    assert capsys.readouterr().err == "error: name a run: score RUN\n"
