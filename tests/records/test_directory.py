from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from records import directory
from records.config import TrainConfig
from records.directory import (
    RunDirectory,
    checkpoint_step,
    existing_problems,
    git_state,
    new_path,
    versions,
)


def test_create_writes_down_what_the_run_is(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "run")
    config = replace(TrainConfig(), seed=3)
    run.create(config, ["python", "train.py", "quick", "--run-dir", "a b"])
    assert run.read_config() == config
    assert (run.path / "command.txt").read_text() == "python train.py quick --run-dir 'a b'\n"
    recorded = json.loads((run.path / "versions.json").read_text())
    assert recorded == versions()
    run.add_command(["again"])
    assert (run.path / "command.txt").read_text().splitlines()[1] == "again"


def test_the_variable_that_beats_the_configuration_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICY_OPS", "naive")
    run = RunDirectory(tmp_path / "run")
    run.create(TrainConfig(), [])
    assert json.loads((run.path / "versions.json").read_text())["POLICY_OPS"] == "naive"


def test_a_run_directory_is_never_used_twice(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(TrainConfig(), [])
    with pytest.raises(
        UserError, match=r"run exists: choose another --run-dir, or continue it with --resume"
    ):
        run.create(TrainConfig(), [])


def test_a_file_or_a_dangling_link_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        assert existing_problems(tmp_path / name) == [
            f"run directory {tmp_path / name} exists: choose another --run-dir"
        ]
    assert existing_problems(tmp_path / "new") == []


def test_versions_name_the_distribution_of_procgen() -> None:
    found = versions()
    assert [item["distribution"] for item in found["procgen"]] in (["procgen"], ["procgen-mirror"])
    assert found["procgen"][0]["version"]
    for name in ("python", "torch", "gymnasium", "stable-baselines3", "numpy"):
        assert found[name]


def test_git_state(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    assert git_state(tmp_path) is None
    git("init")
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "x")
    clean = git_state(tmp_path)
    assert clean is not None
    assert clean["dirty"] is False
    assert len(clean["commit"]) == 40
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}
    (tmp_path / "below").mkdir()
    # Installed somewhere inside another project's checkout: that commit says nothing about this code.
    assert git_state(tmp_path / "below") is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is not a run: it has no config.json"),
        ("{", "cannot be used: not JSON"),
        ('{"slotz": 3}', "cannot be used: unknown setting 'slotz'"),
        ("[]", "cannot be used: the configuration is"),
    ],
)
def test_a_directory_that_is_no_run(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=expected):
        RunDirectory(tmp_path).read_config()


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run: it does not exist"):
        RunDirectory(tmp_path / "x").read_config()


def test_the_newest_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="has no checkpoint to go on from"):
        run.newest_checkpoint()
    run.checkpoints.mkdir()
    steps = [5, 999_999_999_999, 1_000_000_000_000, 40]
    for step in steps:
        run.checkpoint_at(step).write_text("")
    (run.checkpoints / ".step_000000000099.ckpt.abc.partial").write_text("")
    (run.checkpoints / "other.ckpt").write_text("")
    assert [checkpoint_step(path) for path in run.checkpoint_files()] == sorted(steps)
    assert run.newest_checkpoint() == run.checkpoint_at(1_000_000_000_000)


def test_new_paths_do_not_exist_and_say_what_the_run_is(tmp_path: Path) -> None:
    config = replace(TrainConfig(), games=("maze",), seed=7)
    paths = []
    for _ in range(3):
        path = new_path("expert", config, tmp_path)
        assert not path.exists()
        path.mkdir()
        paths.append(path)
    assert len(set(paths)) == 3
    assert all(path.name.startswith("expert-maze-srwm-impala-seed7-") for path in paths)
    assert new_path("quick", TrainConfig(), tmp_path).name.startswith("quick-6games-srwm-")


def left_behind(runs: Path, name: str, seconds_ago: float) -> RunDirectory:
    """A directory that somebody has begun to make."""
    run = RunDirectory(runs / f".{name}.0a1b2c3d.partial")
    run.checkpoints.mkdir(parents=True)
    lock = run.path / ".lock"
    lock.touch()
    os.utime(lock, (time.time() - seconds_ago,) * 2)
    return run


def test_what_a_crash_left_of_a_directory_is_deleted_when_the_next_is_made(tmp_path: Path) -> None:
    """Only that: neither what another process is making, nor what has nothing to do with runs."""
    crashed, young, held = (
        left_behind(tmp_path, name, seconds) for name, seconds in (("a", 3600.0), ("b", 1.0), ("c", 3600.0))
    )
    foreign = tmp_path / ".mine.partial"
    foreign.mkdir()
    (tmp_path / ".file.partial").touch()
    with held.lock:
        os.utime(held.path / ".lock", (time.time() - 3600,) * 2)
        RunDirectory(tmp_path / "run").create(TrainConfig(), [])
    assert not crashed.path.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("run", young.path.name, held.path.name, foreign.name, ".file.partial")
    }


def test_without_locks_nothing_is_taken_for_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    crashed = left_behind(tmp_path, "a", 3600.0)
    RunDirectory(tmp_path / "run").create(TrainConfig(), [])
    assert crashed.path.exists()


def test_a_directory_that_could_not_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(directory, "versions", fail)
    with pytest.raises(OSError, match="No space left"):
        RunDirectory(tmp_path / "run").create(TrainConfig(), [])
    assert list(tmp_path.iterdir()) == []
