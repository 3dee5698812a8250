"""``--processes``: a run that several processes share, started by one command, and what that command says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agents import read_checkpoint
from common.errors import UserError
from experiments.several import number_of_processes, processes_problems
from helpers import tiny_run
from records.config import TrainConfig, to_json
from records.directory import RunDirectory

ROOT = Path(__file__).parents[2]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def config_file(folder: Path, config: TrainConfig) -> str:
    path = folder / "tiny.json"
    path.write_text(json.dumps(to_json(config)))
    return str(path)


def test_two_processes_share_a_run_stop_together_and_go_on(tmp_path: Path) -> None:
    config = replace(tiny_run(), evaluation_episodes=None, total_steps=400_000)
    run = RunDirectory(tmp_path / "run")
    process = start(
        tmp_path, "--config", config_file(tmp_path, config), "--processes", "2", "--run-dir", str(run)
    )
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end and not run.progress_file.exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, said
    assert f"Continue with: python train.py --resume {run} --processes 2" in said
    assert "4 environments in 2 processes" in said
    assert "Traceback" not in said
    assert "elastic" not in said

    saved = run.usable_checkpoint()
    assert saved is not None
    end_at = str(saved.step + 80)
    process = start(tmp_path, "--resume", str(run), "--processes", "2", "--total-steps", end_at)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "fresh episodes" not in said  # as many processes: it goes on where it was
    assert f"--total-steps {2 * int(end_at)} --processes 2" in said
    newest = run.usable_checkpoint()
    assert newest is not None
    assert read_checkpoint(newest.path)["run"]["num_timesteps"] == int(end_at)
    commands = (run.path / "command.txt").read_text().splitlines()
    assert [command.count("--processes 2") for command in commands] == [1, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("quick", "--processes", "4"),
            "66 environments cannot be shared equally by 4 processes: use 60 or 72",
        ),
        (("quick", "--processes", "0"), "--processes '0': give a number from 1 to 1024, or auto"),
        (
            ("continual-quick", "--processes", "2"),
            "sequences of tasks are not for several processes: use one",
        ),
        (
            ("quick", "--processes", "2", "--requeue", "--run-dir", "x"),
            "--requeue is for one process: leave --processes out, or use torchrun",
        ),
        (("--resume", "nothing", "--processes", "2"), "nothing"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_started(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    process = start(tmp_path, *words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert said in output
    assert len(output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_numbers() -> None:
    for text in ("auto", "1", "1024"):
        assert processes_problems(text) == []
    for text in ("", "0", "-1", "1025", "2.0", "x", "9" * 5000):
        assert len(processes_problems(text)[0]) < 100


@pytest.mark.parametrize(
    ("cores", "gpus", "num_envs", "device", "expected"),
    [
        (1, 0, 12, "auto", 1),
        (2, 0, 12, "auto", 2),
        (16, 0, 12, "auto", 2),
        (16, 0, 7, "auto", 1),
        (16, 1, 12, "auto", 1),
        (16, 8, 12, "auto", 6),  # 12 environments cannot be shared by 8 or 7
        (16, 8, 12, "cpu", 2),
        (16, 8, 12, "cuda:3", 1),
    ],
)
def test_auto_is_one_for_each_gpu_or_two_on_a_processor(
    cores: int, gpus: int, num_envs: int, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    config = replace(tiny_run(), num_envs=num_envs, games=("maze",), device=device)
    assert number_of_processes("auto", config) == expected


def test_what_cannot_be_shared_is_said_for_a_number() -> None:
    with pytest.raises(UserError, match="12 environments cannot be shared equally by 5 processes"):
        number_of_processes("5", tiny_run(num_envs=12))
