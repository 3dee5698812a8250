"""train.py as users start it: in a process of its own, in an empty directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.cli import run_command
from experiments import launch
from records.directory import RunDirectory

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
TINY = (
    "--games fruitbot chaser --num-envs 4 --encoder.channels 4 --encoder.hidden 8 --core.width 8 --core.heads 2 "
    "--core.feedforward 8 --core.layers 1 --agent.rollout-steps 20 --log-every-steps 80 --env-threads 0 "
    "--device cpu --evaluation-episodes 1 --evaluation-splits train"
).split()


def train_py(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TRAIN), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_run_from_beginning_to_end_and_its_extension(tmp_path: Path) -> None:
    done = train_py(["quick", *TINY, "--total-steps", "160", "--run-dir", "runs/mine"], tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "160/160 steps" in done.stdout
    run = RunDirectory(tmp_path / "runs" / "mine")
    assert run.newest_checkpoint() == run.checkpoint_at(160)
    assert "python train.py --resume runs/mine --total-steps 320" in done.stdout
    assert "levels 0-199" in done.stdout
    assert {path.name for path in run.videos.iterdir()} == {"fruitbot.mp4", "chaser.mp4"}
    assert run.evaluation_file.exists()

    done = train_py(["--resume", "runs/mine", "--total-steps", "320"], tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert run.newest_checkpoint() == run.checkpoint_at(320)
    assert (run.path / "command.txt").read_text().splitlines() == [
        f"python train.py quick {' '.join(TINY)} --total-steps 160 --run-dir runs/mine",
        "python train.py --resume runs/mine --total-steps 320",
    ]


def test_training_goes_on_where_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """As with ``python train.py quick | head -1``, and in a terminal that knows ASCII alone."""
    words = ["quick", *TINY, "--total-steps", "160", "--no-videos", "--run-dir", "run"]
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Training srwm")
    process.stdout.close()
    assert process.wait(timeout=300) == 0
    assert RunDirectory(tmp_path / "run").evaluation_file.exists()


def test_sigterm_saves_and_resuming_goes_on(tmp_path: Path) -> None:
    words = ["quick", *TINY, "--total-steps", "100_000_000", "--run-dir", "run"]
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = RunDirectory(tmp_path / "run")
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if run.progress_file.exists() and run.progress_file.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (143, "")
    saved = run.newest_checkpoint()
    assert f"saved run/checkpoints/{saved.name}" in out
    assert "Continue with: python train.py --resume run" in out

    step = int(saved.stem.removeprefix("step_"))
    done = train_py(["--resume", "run", "--total-steps", str(step + 80)], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Continuing {saved.name}" in done.stdout
    assert run.newest_checkpoint() == run.checkpoint_at(step + 80)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["quick", "--games", "bigfsh", "--policy", "srmw"],
            "2 problems: unknown policy 'srmw': did you mean srwm?",
        ),
        (["--resume", "runs/none"], "runs/none is not a run: it does not exist"),
    ],
)
def test_bad_input_in_a_process_of_its_own(words: list[str], part: str, tmp_path: Path) -> None:
    done = train_py(words, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {part}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "quik",
        "quick --games bigfsh",
        "quick --policy lstn",
        "quick --algorithm a3c",
        "quick --mode memory",
        "quick --num-envs 65",
        "quick --agent.batch-unrolls 7",
        "quick --algorithm ppo --agent.minibatches 5",
        "quick --device cuda:99",
        "quick --core.heads 7 --num-envs 65",
        "quick --nonsense",
        "quick --run-dir .",
        "--resume .",
        "--resume nowhere --total-steps x",
    ],
)
def test_bad_input_makes_no_environment_and_no_file(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "make_environments", None)
    assert run_command(lambda: launch.main(line.split())) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_the_presets_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: launch.main([])) == 0
    shown = capfd.readouterr()
    assert "paper-memory4" in shown.out
    assert shown.err == ""


def test_a_directory_that_cannot_be_made_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    line = f"quick --run-dir {tmp_path}/file/run"
    assert run_command(lambda: launch.main(line.split())) == 2
    assert capfd.readouterr() == ("", f"error: {tmp_path}/file/run: Not a directory\n")
