"""The same command over and over, as a cluster's queue gives it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from common.cli import run_command
from common.errors import UserError
from experiments import launch
from experiments.stopping import StopOnRequest
from records.directory import RunDirectory

WORDS = (
    "quick --games bigfish dodgeball --num-envs 4 --total-steps 120 --core.width 8 --core.heads 2 "
    "--core.feedforward 8 --core.layers 1 --encoder.channels 4 --encoder.hidden 8 --agent.rollout-steps 10 "
    "--env-threads 0 --device cpu --evaluation-episodes none --no-videos --requeue --run-dir"
).split()


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scheduler that notes what it is asked."""
    program, notes = tmp_path / "bin" / "scontrol", tmp_path / "asked.txt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return notes


def interrupted(number: int, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> int:
    """The exit code of the command if a signal comes in its second rollout."""
    on_step = StopOnRequest._on_step

    def send(callback: StopOnRequest) -> bool:
        if callback.n_calls == 15:
            os.kill(os.getpid(), number)
        return on_step(callback)

    with monkeypatch.context() as patch:
        patch.setattr(StopOnRequest, "_on_step", send)
        return launch.main(words)


def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_on(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*WORDS, str(tmp_path / "run")]
    assert interrupted(signal.SIGUSR1, monkeypatch, words) == 128 + signal.SIGUSR1
    assert queue.read_text() == "requeue 4711\n"
    run = RunDirectory(tmp_path / "run")
    assert [path.name for path in run.checkpoint_files()] == ["step_000000000040.ckpt"]
    assert launch.main(words) == 0
    assert run.newest_checkpoint().name == "step_000000000120.ckpt"
    before = run.config_file.stat().st_mtime_ns
    assert launch.main(words) == 0  # a job that comes back too often
    assert run.config_file.stat().st_mtime_ns == before
    assert queue.read_text() == "requeue 4711\n"


def test_a_job_that_is_cancelled_does_not_come_back(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted(signal.SIGTERM, monkeypatch, [*WORDS, str(tmp_path / "run")]) == 128 + signal.SIGTERM
    assert not queue.exists()


def test_a_scheduler_that_does_not_answer_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interrupted(signal.SIGUSR1, monkeypatch, [*WORDS, str(tmp_path / "run")]) == 128 + signal.SIGUSR1
    assert "scontrol requeue 4711 did not work" in caplog.text


def test_another_run_in_its_place_is_refused(tmp_path: Path) -> None:
    words = [*WORDS, str(tmp_path / "run")]
    assert launch.main(words) == 0
    with pytest.raises(UserError, match="holds a run with other seed: choose another --run-dir"):
        launch.main([*words, "--seed", "5"])
    assert run_command(lambda: launch.main(WORDS[:-1])) == 2  # no --run-dir
