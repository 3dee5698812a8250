from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli import run_command, with_subcommands
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
