from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from records.config import TrainConfig
from records.directory import RunDirectory, checkpoint_step, existing_problems, new_path
from records.versions import git_state, versions


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
