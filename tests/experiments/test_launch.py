"""Runs of a tiny network on the real games, in this process."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import read_checkpoint, write_checkpoint
from agents.impala import ImpalaLearner
from common.cli import run_command
from common.errors import UserError
from experiments import launch
from experiments.launch import resume, train
from experiments.stopping import StopOnRequest
from helpers import assert_same, tiny_run
from records.config import TrainConfig, to_json
from records.directory import RunDirectory, UsableCheckpoint, checkpoint_step


def steps_of(run: RunDirectory) -> list[int]:
    return [checkpoint_step(path) for path in run.checkpoint_files()]


def rows_of(run: RunDirectory) -> list[dict[str, str]]:
    with run.progress_file.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of 480 steps that was never interrupted."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "whole")
    assert train(tiny_run(), run.path, command=["python", "train.py", "tiny"]) == 0
    return run


@pytest.fixture
def copy(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of that run to change."""
    shutil.copytree(finished.path, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def test_a_run_leaves_what_its_directory_promises(finished: RunDirectory) -> None:
    assert finished.read_config() == tiny_run(env_groups=1)
    assert (finished.path / "command.txt").read_text() == "python train.py tiny\n"
    assert json.loads((finished.path / "versions.json").read_text())["torch"]
    assert list(finished.tensorboard.glob("events.*"))
    assert [int(row["time/total_timesteps"]) for row in rows_of(finished)] == [80, 160, 240, 320, 400, 480]
    assert {"train/loss", "game/maze/return", "game/bigfish/normalized", "time/sps"} <= set(
        rows_of(finished)[-1]
    )


def test_checkpoints_are_named_after_the_steps_they_hold(finished: RunDirectory) -> None:
    assert steps_of(finished) == [160, 320, 480]
    for path in finished.checkpoint_files():
        content = read_checkpoint(path)
        assert content["run"]["num_timesteps"] == checkpoint_step(path)
        assert content["experiment"] == to_json(tiny_run(env_groups=1))


def test_a_resumed_run_is_the_run_that_was_never_interrupted(
    finished: RunDirectory, copy: RunDirectory
) -> None:
    copy.checkpoint_at(320).unlink()
    copy.checkpoint_at(480).unlink()
    assert resume(copy.path, command=["python", "train.py", "--resume", "x"]) == 0
    assert steps_of(copy) == [160, 320, 480]
    for step in (320, 480):
        assert_same(read_checkpoint(copy.checkpoint_at(step)), read_checkpoint(finished.checkpoint_at(step)))
    assert (copy.path / "command.txt").read_text().splitlines()[1] == "python train.py --resume x"
    timing = ("time/sps", "memory/")
    for mine, theirs in zip(rows_of(copy), rows_of(finished), strict=True):
        for tag in mine:
            assert tag.startswith(timing) or mine[tag] == theirs[tag], tag


def test_a_larger_total_extends_a_run(copy: RunDirectory) -> None:
    assert resume(copy.path, total_steps=640) == 0
    assert steps_of(copy) == [160, 320, 480, 640]
    assert copy.read_config() == tiny_run(total_steps=640, env_groups=1)
    assert read_checkpoint(copy.checkpoint_at(640))["experiment"]["total_steps"] == 640
    # And once more: that earlier checkpoints name another total is no contradiction.
    assert resume(copy.path, total_steps=720) == 0


def test_another_learning_rate_is_that_of_what_follows(tmp_path: Path) -> None:
    def wanted(total_steps: int, rate: float) -> TrainConfig:
        agent = {"rollout_steps": 20, "learning_rate": rate, "learning_rate_decay": False}
        return tiny_run(total_steps=total_steps, env_groups=1, agent=agent)

    run = RunDirectory(tmp_path / "run")
    assert train(wanted(160, 6e-4), run.path) == 0
    assert resume(run.path, total_steps=320, learning_rate=3e-5) == 0
    assert run.read_config() == wanted(320, 3e-5)
    # Earlier checkpoints were made with another rate; that is no contradiction, and the new one stays.
    assert resume(run.path, total_steps=480) == 0
    rates = {int(row["time/total_timesteps"]): float(row["train/learning_rate"]) for row in rows_of(run)}
    assert rates == {80: 6e-4, 160: 6e-4, 240: 3e-5, 320: 3e-5, 400: 3e-5, 480: 3e-5}


@pytest.mark.parametrize("lag", [0, 1])
def test_a_signal_saves_the_last_whole_rollout_and_resuming_finishes(
    lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = StopOnRequest._on_step

    def kill_in_the_third_rollout(self: StopOnRequest) -> bool:
        if self.model.num_timesteps == 200:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(StopOnRequest, "_on_step", kill_in_the_third_rollout)
    run = RunDirectory(tmp_path / "run")
    config = tiny_run(agent={"rollout_steps": 20, "rollout_lag": lag})
    assert train(config, run.path) == 143
    path = run.newest_checkpoint()
    assert read_checkpoint(path)["run"]["num_timesteps"] == checkpoint_step(path)
    if lag == 0:
        assert steps_of(run) == [160]
    shown = capsys.readouterr().out
    assert "Stopped at 200 of 480 steps" in shown
    assert f"--resume {run}" in shown
    monkeypatch.setattr(StopOnRequest, "_on_step", original)
    assert resume(run.path) == 0
    assert steps_of(run)[-1] >= 480


def test_stopping_in_the_first_rollout_saves_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopOnRequest, "_on_step", lambda self: os.kill(os.getpid(), signal.SIGINT) or False)
    run = RunDirectory(tmp_path / "run")
    train(tiny_run(), run.path)
    assert steps_of(run) == [0]
    monkeypatch.undo()
    assert resume(run.path) == 0
    assert steps_of(run) == [0, 160, 320, 480]


def test_a_run_directory_that_exists_is_refused_before_anything_starts(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "make_environments", None)
    before = (finished.path / "command.txt").read_bytes()
    with pytest.raises(UserError, match="exists: choose another"):
        train(tiny_run(), finished.path)
    assert (finished.path / "command.txt").read_bytes() == before


def test_contradictions_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "make_environments", None)
    with pytest.raises(UserError, match="5 environments cannot be shared equally"):
        train(replace(tiny_run(), num_envs=5), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


class TestResumeRefuses:
    """Each with one line, before an environment is made."""

    @pytest.fixture(autouse=True)
    def no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launch, "make_environments", None)

    def refused(self, run: RunDirectory, total_steps: int | None = 10_000) -> str:
        config = run.config_file.read_bytes() if run.config_file.exists() else None
        with pytest.raises(UserError) as raised:
            resume(run.path, total_steps)
        if config is not None:
            assert run.config_file.read_bytes() == config
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_what_does_not_exist(self, tmp_path: Path) -> None:
        assert "is not a run: it does not exist" in self.refused(RunDirectory(tmp_path / "nowhere"))

    def test_a_directory_without_a_run(self, tmp_path: Path) -> None:
        assert "is not a run: it has no config.json" in self.refused(RunDirectory(tmp_path))

    @pytest.mark.parametrize("length", [0, 100, -10])
    def test_checkpoints_none_of_which_is_whole(self, copy: RunDirectory, length: int) -> None:
        for path in copy.checkpoint_files():
            path.write_bytes(path.read_bytes()[:length])
        before = sorted(copy.checkpoints.iterdir())
        message = self.refused(copy)
        assert "none of the 3 checkpoints" in message
        assert "step_000000000480.ckpt is not a whole checkpoint" in message
        assert sorted(copy.checkpoints.iterdir()) == before  # and the next attempt does not begin anew

    def test_a_foreign_file(self, copy: RunDirectory) -> None:
        for path in copy.checkpoint_files()[:-1]:
            path.unlink()
        torch.save({"weights": torch.zeros(3)}, copy.newest_checkpoint())
        assert "the only checkpoint" in self.refused(copy)
        assert "is not a whole checkpoint of this project (truncated, damaged or foreign)" in self.refused(
            copy
        )

    def test_a_checkpoint_that_train_py_did_not_make(self, copy: RunDirectory) -> None:
        for path in copy.checkpoint_files():
            write_checkpoint(path, {**read_checkpoint(path), "experiment": {}})
        assert "was not made by train.py" in self.refused(copy)

    def test_a_run_that_another_process_trains(self, copy: RunDirectory) -> None:
        with copy.lock:
            assert f"is in use by process {os.getpid()} on" in self.refused(copy)

    def test_a_checkpoint_of_another_run(self, copy: RunDirectory) -> None:
        copy.write_config(tiny_run(seed=5, games=["bigfish"]))
        assert (
            "belongs to another run than its directory: config.json differs in games, seed"
            in self.refused(copy)
        )

    def test_a_run_that_has_ended(self, copy: RunDirectory) -> None:
        copy.write_config(tiny_run(env_groups=1, evaluation_episodes=5))
        copy.evaluation_file.write_text('{"checkpoint": "step_000000000480.ckpt"}')
        expected = "has ended at 480 of 480 steps: extend it with a larger --total-steps"
        assert expected in self.refused(copy, None)
        assert "has made 480 steps: it cannot end at 300" in self.refused(copy, 300)

    def test_settings_that_no_longer_fit_this_machine(
        self, copy: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy.write_config(tiny_run(device="cuda"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "device 'cuda' is not available" in self.refused(copy)


@pytest.fixture
def trained_with(monkeypatch: pytest.MonkeyPatch) -> list[UsableCheckpoint | None]:
    """What `_run` is called with, instead of calling it."""
    calls: list[UsableCheckpoint | None] = []

    def note(config: Any, run: Any, lock: Any, checkpoint: UsableCheckpoint | None, exchange: Any) -> int:
        calls.append(checkpoint)
        return 0

    monkeypatch.setattr(launch, "_run", note)
    return calls


def test_the_newest_whole_checkpoint_is_taken_and_the_others_named(
    copy: RunDirectory, trained_with: list[UsableCheckpoint | None], caplog: pytest.LogCaptureFixture
) -> None:
    newest, middle, oldest = reversed(copy.checkpoint_files())
    newest.write_bytes(newest.read_bytes()[:-1])
    middle.write_bytes(b"")
    assert resume(copy.path, 1000) == 0
    assert [found and found.path for found in trained_with] == [oldest]
    assert copy.checkpoint_files() == [oldest]
    assert (copy.checkpoints / f"{newest.name}.damaged").exists()
    assert [record.message.split(" is ")[0] for record in caplog.records] == [
        f"warning: skipped a checkpoint: {path}" for path in (newest, middle)
    ]


def test_a_run_does_not_end_before_the_steps_that_it_has_made(copy: RunDirectory) -> None:
    before = copy.config_file.read_bytes()
    with pytest.raises(UserError, match="has made 480 steps: it cannot end at 80"):
        resume(copy.path, total_steps=80)
    assert copy.config_file.read_bytes() == before


ODD_FILES = ("progress.csv", "command.txt", "tb/events", "checkpoints/best.json", "config.json", ".lock")


@pytest.fixture
def impatient() -> Iterator[None]:
    """Whatever waits for ever is interrupted."""

    def complain(*arguments: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ODD_FILES)
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_nothing_in_a_run_directory_hangs_it_or_leads_elsewhere(
    name: str, kind: str, copy: RunDirectory, tmp_path: Path, impatient: None
) -> None:
    """It is refused in one line, or does not matter."""
    path = copy.path / name if name != "tb/events" else next(copy.tensorboard.glob("events.*"))
    precious = tmp_path / "precious"
    shutil.copy(path, precious) if path.exists() else precious.write_text("precious")
    before = precious.read_bytes()
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(precious)
    code = run_command(lambda: resume(copy.path, total_steps=500))
    harmless = name == "checkpoints/best.json" or (kind == "link" and name in ("progress.csv", "config.json"))
    assert code == (0 if harmless else 2)
    assert precious.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"checkpoint": "../x", "normalized_return": 1e999}', "9" * 9999]
)
@pytest.mark.parametrize("name", ["checkpoints/best.json", "config.json", "evaluation.json", "progress.csv"])
def test_files_that_make_no_sense_are_one_line_or_nothing(
    name: str, text: str, copy: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.path / name).write_text(text)
    code = run_command(lambda: resume(copy.path, total_steps=500))
    assert code == (2 if name == "config.json" else 0)
    assert len(capsys.readouterr().err) < 1000


def test_scores_of_before_a_run_was_extended_do_not_count(
    copy: RunDirectory, trained_with: list[UsableCheckpoint | None]
) -> None:
    copy.write_config(tiny_run(env_groups=1, evaluation_episodes=5))
    copy.evaluation_file.write_text('{"checkpoint": "step_000000000320.ckpt"}')
    resume(copy.path)
    assert len(trained_with) == 1


def test_scores_without_the_videos_that_were_asked_for_are_not_the_end(
    copy: RunDirectory, trained_with: list[UsableCheckpoint | None]
) -> None:
    copy.write_config(tiny_run(env_groups=1, evaluation_episodes=5, videos=True))
    copy.evaluation_file.write_text('{"checkpoint": "step_000000000480.ckpt"}')
    copy.videos.mkdir()
    (copy.videos / "bigfish.mp4").touch()
    resume(copy.path)
    assert len(trained_with) == 1
    (copy.videos / "maze.mp4").touch()
    with pytest.raises(UserError, match="has ended"):
        resume(copy.path)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    finished: RunDirectory, copy: RunDirectory
) -> None:
    shutil.rmtree(copy.checkpoints)
    partial = copy.path / ".progress.csv.partial"
    partial.touch()
    assert resume(copy.path) == 0
    assert steps_of(copy) == [160, 320, 480]
    assert_same(read_checkpoint(copy.checkpoint_at(480)), read_checkpoint(finished.checkpoint_at(480)))
    assert [row["time/total_timesteps"] for row in rows_of(copy)] == ["80", "160", "240", "320", "400", "480"]
    assert not partial.exists()


def test_settings_that_decide_nothing_may_differ_from_those_of_the_checkpoint(
    copy: RunDirectory, trained_with: list[UsableCheckpoint | None]
) -> None:
    copy.write_config(
        tiny_run(env_groups=1, keep_checkpoints=2, watchdog_minutes=None, log_every_steps=160, videos=True)
    )
    assert resume(copy.path, 1000, on_nan="skip") == 0
    assert copy.read_config().agent.on_nan == "skip"


def test_from_now_on_updates_that_are_not_finite_are_skipped(
    copy: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = ImpalaLearner.losses, []

    def spoilt_once(self: ImpalaLearner, batch: Any) -> Any:
        found = losses(self, batch)
        calls.append(batch)
        return found._replace(total=found.total * float("nan")) if len(calls) == 1 else found

    monkeypatch.setattr(ImpalaLearner, "losses", spoilt_once)
    assert resume(copy.path, 640, on_nan="skip") == 0
    assert float(rows_of(copy)[-1]["train/skipped_updates"]) == 1


def test_a_finished_run_without_scores_only_scores(
    copy: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (copy.progress_file, *copy.checkpoint_files())}
    copy.write_config(tiny_run(env_groups=1, evaluation_episodes=1, evaluation_splits=["train"]))
    assert resume(copy.path) == 0
    assert json.loads(copy.evaluation_file.read_text())["checkpoint"] == str(copy.newest_checkpoint())
    assert {path: path.read_bytes() for path in before} == before
    assert str(copy.newest_checkpoint()) in capsys.readouterr().out


def test_the_end_names_every_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path / "run")
    assert train(tiny_run(total_steps=80, checkpoint_every_steps=None), run.path) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for text in (
        "Training srwm with impala on bigfish, maze (easy, levels train), 4 environments, 80 steps",
        "On cpu; encoder in float32; srwm: step for acting, fused for learning",
        "Peak memory: ",
        str(run.checkpoint_at(80)),
        str(run.progress_file),
        f"tensorboard --logdir {run.tensorboard}",
        f"python eval.py {run}",
        f"python train.py --resume {run} --total-steps 160",
    ):
        assert text in shown.out


def test_a_precision_that_the_machine_only_emulates_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run(total_steps=80, videos=False, evaluation_episodes=None)
    slow = replace(config, policy=replace(config.policy, precision="bfloat16"))
    monkeypatch.setattr(launch, "has_bfloat16_units", lambda device: False)
    assert train(slow, tmp_path / "slow") == 0
    assert capsys.readouterr().out.count("--precision auto") == 1
    monkeypatch.setattr(launch, "has_bfloat16_units", lambda device: True)
    assert train(slow, tmp_path / "fast") == 0
    assert "--precision auto" not in capsys.readouterr().out
