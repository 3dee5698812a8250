from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from records.lock import RunLock


def test_a_second_lock_is_refused_while_the_first_is_held(tmp_path: Path) -> None:
    told = rf"{tmp_path} is in use by process {os.getpid()} on .* since 20"
    with RunLock(tmp_path / ".lock"), pytest.raises(UserError, match=told):
        RunLock(tmp_path / ".lock").acquire()
    with RunLock(tmp_path / ".lock"):
        pass


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from records.lock import RunLock\n"
        "RunLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
            RunLock(path).acquire()
        process.send_signal(signal.SIGKILL)
    assert json.loads(path.read_text())["pid"] == process.pid  # what is left says so, and is in nobody's way
    with RunLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 5}', b"\xff\xfe"])
def test_a_file_that_does_not_say_whose_it_is_still_locks(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".lock"
    with RunLock(path):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is in use: wait for it"):
            RunLock(path).acquire()


def test_a_lock_whose_file_was_deleted_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with RunLock(path) as lock:
        before = len(list(Path("/proc/self/fd").iterdir()))
        lock.renew()
        path.unlink()
        lock.renew()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        with pytest.raises(UserError):
            RunLock(path).acquire()


def test_a_lock_that_somebody_else_has_by_now_is_not_taken_again(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with RunLock(path) as lock:
        path.unlink()
        with RunLock(path), pytest.raises(UserError, match="is in use"):
            lock.renew()


def test_a_file_system_without_locks_is_said_and_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLock(tmp_path / ".lock"):
        assert "no locks on this file system" in caplog.text


def test_it_is_not_inherited_by_programs_that_are_started(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with RunLock(path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with RunLock(path):
            pass
    finally:
        child.kill()
        child.wait()
