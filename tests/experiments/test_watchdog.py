from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.stages import stage
from experiments.stopping import Watchdog

SOON = 0.2 / 60


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_names_the_stage_saves_and_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left: list[int] = []
    free = threading.Event()

    def wait_for_an_environment() -> None:
        with stage("environment"):
            free.wait(30)

    stuck = threading.Thread(target=wait_for_an_environment)
    stuck.start()
    with Watchdog(SOON, lambda: 1, tmp_path / "diagnostics", lambda: "saved x.ckpt", left.append):
        wait_until(lambda: left)
    free.set()
    stuck.join()
    assert left == [1]
    assert "nothing has moved for 0.00333 minutes, in: environment (stacks of all threads: " in caplog.text
    assert "saved x.ckpt; leaving, continue with --resume" in caplog.text
    (stacks,) = (tmp_path / "diagnostics").glob("stuck_*.txt")
    assert "wait_for_an_environment" in stacks.read_text()


def test_it_is_quiet_as_long_as_something_moves(tmp_path: Path) -> None:
    left: list[int] = []
    counter = itertools.count()
    with Watchdog(SOON, lambda: next(counter), tmp_path, lambda: "", left.append):
        time.sleep(0.8)
    assert not left


def test_it_goes_on_if_things_move_again_while_it_saves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[int] = []
    signs = [0]

    def save() -> str:
        signs[0] += 1
        return "saved"

    with Watchdog(SOON, lambda: signs[0], tmp_path, save, left.append):
        wait_until(lambda: signs[0] >= 2)
    assert not left
    assert "it moves again: going on" in caplog.text


def test_stacks_that_cannot_be_written_do_not_stop_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    left: list[int] = []
    with Watchdog(SOON, lambda: 1, tmp_path / "file" / "x", lambda: "saved", left.append):
        wait_until(lambda: left)
    assert "its stacks could not be written: Not a directory" in caplog.text


def test_none_never_acts(tmp_path: Path) -> None:
    before = threading.active_count()
    with Watchdog(None, lambda: 1, tmp_path, lambda: ""):
        assert threading.active_count() == before


def test_what_no_thread_speaks_of_is_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left: list[int] = []
    with Watchdog(SOON, lambda: 1, tmp_path, lambda: "saved", left.append):
        wait_until(lambda: left)
    assert "in: something unknown" in caplog.text
