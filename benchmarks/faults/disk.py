"""What happens to the directory of a run: a full disk, no permission to write, deletion, a second process."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.artifacts import Artifacts
from benchmarks.faults.process import ROLLOUT, TOTAL_STEPS, start
from benchmarks.faults.workspace import Outcome, Workspace, unreadable_checkpoints


@contextmanager
def small_disk(workspace: Workspace, megabytes: int) -> Iterator[Path]:
    """A file system of that size."""
    place = workspace.folder / f"disk{time.monotonic_ns()}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def full_disk(workspace: Workspace) -> Outcome:
    """The disk fills up during training; room is made while it goes on, or only after it has ended."""
    outcome = Outcome()
    workspace.reference  # noqa: B018
    for room_comes_back in [True, False] * 3:
        with small_disk(workspace, 8) as disk:
            run = workspace.run(disk)
            process = workspace.start(run)
            process.wait_for(run, ROLLOUT * workspace.random.randint(1, 5))
            _fill(disk)
            if room_comes_back:
                time.sleep(0.15 * workspace.seconds)
                (disk / "filler").unlink()
            code = process.wait()
            said = process.output.read_text()
            problems = unreadable_checkpoints(run)
            if code == 0 and (room_comes_back or "could not" not in said):
                outcome.count(problems + workspace.compare(run))
                continue
            problems += [f"ended with {code}: {said[-300:]}"] if code not in (1, 2) else []
            problems += _more_than_a_line(said)
            (disk / "filler").unlink(missing_ok=True)
            outcome.count(problems or workspace.finish(run))
    return outcome


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass


def read_only(workspace: Workspace) -> Outcome:
    """The directory becomes read-only during training, and writable again, or not before the run has ended."""
    outcome = Outcome()
    workspace.reference  # noqa: B018
    for it_ends in [True, False] * 3:
        run = workspace.run()
        process = workspace.start(run)
        process.wait_for(run, ROLLOUT * workspace.random.randint(1, 5))
        with _read_only(workspace, run.path):
            if it_ends:
                time.sleep(0.15 * workspace.seconds)
            else:
                code = process.wait()
        if it_ends:
            code = process.wait()
        said = process.output.read_text()
        problems = unreadable_checkpoints(run)
        if code == 0:
            outcome.count(problems + workspace.compare(run))
            continue
        problems += [f"ended with {code}: {said[-300:]}"] if it_ends or code not in (1, 2) else []
        problems += _more_than_a_line(said)
        outcome.count(problems or workspace.finish(run))
    return outcome


@contextmanager
def _read_only(workspace: Workspace, path: Path) -> Iterator[None]:
    """Within it, `path` leads to a read-only copy of what is there: the file system itself is busy."""
    shadow = workspace.folder / f"shadow{time.monotonic_ns()}"
    while True:
        try:
            shutil.copytree(path, shadow, symlinks=True, dirs_exist_ok=True)
            break
        except (shutil.Error, FileNotFoundError):  # files come and go
            continue
    subprocess.run(["mount", "--bind", shadow, path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _more_than_a_line(said: str) -> list[str]:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    return [f"said {said[-300:]}"] if len(errors) != 1 or "Traceback" in said else []


def deleted_directory(workspace: Workspace) -> Outcome:
    """The whole run directory disappears during training: it is made anew, and the weights are those of always."""
    outcome = Outcome()
    for _ in range(4):
        run = workspace.run()
        process = workspace.start(run)
        process.wait_for(run, ROLLOUT * workspace.random.randint(1, 6))
        for _ in range(20):
            shutil.rmtree(run.path, ignore_errors=True)
            if not run.path.exists():
                break
        code = process.wait()
        if code != 0:
            outcome.count([f"ended with {code}: {process.output.read_text()[-300:]}"])
            continue
        left = Artifacts.of(run)
        known = {row["time/total_timesteps"] for row in left.rows}
        problems = [
            name for name in workspace.reference.differences(left) if name.startswith(("checkpoint", "eval"))
        ]
        problems += [] if run.config_file.exists() else ["no configuration"]
        problems += [] if str(TOTAL_STEPS) in known else ["the last row is missing"]
        outcome.count(problems)
    return outcome


def two_runs(workspace: Workspace) -> Outcome:
    """A second process in the same directory is refused; after a kill the directory is free at once."""
    outcome, run = Outcome(), workspace.run()
    first = workspace.start(run)
    first.wait_for(run, ROLLOUT)
    second = start(run, workspace.folder / "second.txt")
    code, said = second.wait(), second.output.read_text()
    problems = [] if code == 2 and f"in use by process {first.pid}" in said else [f"{code}: {said}"]
    outcome.count(problems + ([] if first.wait() == 0 else ["the first ended"]) + workspace.compare(run))
    return outcome
