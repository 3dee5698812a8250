"""Runs of a suite as jobs: submitit's executor for this machine stands for a cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import UserError
from experiments.suites import jobs
from experiments.suites.command_line import main
from experiments.suites.jobs import ClusterStarter, LocalStarter, meeting, parsed_options, train_command
from records.directory import RunDirectory

# Stands for train.py: notes its words, and saves when it is asked to stop.
PROGRAM = """
import pathlib, signal, sys, time
words = sys.argv[1:]
run = pathlib.Path(words[words.index("--resume" if "--resume" in words else "--run-dir") + 1])
run.mkdir(exist_ok=True)
(run / "config.json").touch()
with (run / "words.txt").open("a") as file:
    file.write(" ".join(words) + "\\n")

def save(number, frame):
    (run / "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
end = time.monotonic() + 60
while not (run / "saved").exists() and "--wait" in words and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(3 if "--fail" in words else 0)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(jobs, "TRAIN", path)
    monkeypatch.setenv("PYTHONPATH", str(Path(jobs.__file__).resolve().parents[2]))
    return path


def finished(started: jobs.Started) -> int:
    end = time.monotonic() + 600
    while (code := started.poll()) is None and time.monotonic() < end:
        time.sleep(0.05)
    assert code is not None
    return code


def submit(tmp_path: Path, *words: str) -> tuple[jobs.ClusterJob, RunDirectory]:
    run = RunDirectory(tmp_path / "run")
    starter = ClusterStarter("local", tmp_path / "jobs", {"timeout_min": 5})
    return starter.start(["--run-dir", str(run), *words], run, tmp_path / "log.txt", 0), run


def test_the_command_of_several_processes_is_torchruns() -> None:
    assert train_command("train.py", ["quick"], 1) == [sys.executable, "train.py", "quick"]
    assert train_command("train.py", ["quick"], 4)[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "train.py", "quick")
    ]


def test_nodes_meet_at_the_first_of_them() -> None:
    assert meeting(SimpleNamespace(num_nodes=1)) == ("--standalone",)
    nodes = [
        SimpleNamespace(num_nodes=2, node=node, job_id="1234_5", hostnames=["left", "right"])
        for node in (0, 1)
    ]
    first, second = map(meeting, nodes)
    assert first[-1] == second[-1] == "left:32345"
    assert first[first.index("--node-rank") + 1] == "0"
    assert second[second.index("--node-rank") + 1] == "1"


def test_a_job_makes_its_run(program: Path, tmp_path: Path) -> None:
    job, run = submit(tmp_path)
    assert finished(job) == 0
    assert (run.path / "words.txt").read_text() == f"--run-dir {run}\n"
    assert (tmp_path / "log.txt").read_text() == "begun\n"


def test_a_job_whose_run_fails_has_failed(program: Path, tmp_path: Path) -> None:
    job, _ = submit(tmp_path, "--fail")
    assert finished(job) == 1


def test_a_preempted_job_saves_and_goes_on_with_resume(program: Path, tmp_path: Path) -> None:
    job, run = submit(tmp_path, "--wait")
    end = time.monotonic() + 600
    while not (tmp_path / "log.txt").exists() or "begun" not in (tmp_path / "log.txt").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    # To the task itself: submitit's own `_interrupt` reaches the process that looks after it only.
    (task,) = Path(f"/proc/{job.job.job_id}/task/{job.job.job_id}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    assert finished(job) == 0
    assert (run.path / "saved").exists()
    assert (run.path / "words.txt").read_text().splitlines() == [f"--run-dir {run} --wait", f"--resume {run}"]


def test_options() -> None:
    assert parsed_options(["timeout_min=60", "slurm_partition=gpu"]) == {
        "timeout_min": 60,
        "slurm_partition": "gpu",
    }
    for wrong in ("timeout_min", "=5", "a b=1"):
        with pytest.raises(UserError, match="is not NAME=VALUE"):
            parsed_options([wrong])


def test_what_submitit_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--cluster local cannot be used: .*nonsense"):
        ClusterStarter("local", tmp_path, {"nonsense": 1})
    with pytest.raises(UserError, match="--cluster slurm cannot be used"):
        ClusterStarter("slurm", tmp_path, {})


def test_without_submitit_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="pip install"):
        ClusterStarter("local", tmp_path, {})


def test_a_suite_is_made_by_a_cluster(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program of this test makes no steps, so that the runs count as failed: with what they said."""
    monkeypatch.chdir(tmp_path)
    words = ["paper-experts", "--scale", "0.001", "--seeds", "0", "--cluster", "local"]
    assert main([*words, "--only", "starpilot-srwm*"]) == 1
    assert "failed, code 0: begun" in capsys.readouterr().out


def test_cluster_options_without_a_cluster_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --cluster, too"):
        main(["paper-experts", "--runs", str(tmp_path), "--cluster-options", "nodes=2"])


def test_runs_that_so_many_processes_cannot_share_are_refused(tmp_path: Path) -> None:
    words = ["paper-experts", "--runs", str(tmp_path), "--dry-run", "--cluster", "slurm"]
    with pytest.raises(
        UserError, match="64 environments cannot be shared equally by 6 processes: use 60 or 66"
    ):
        main([*words, "--processes", "3", "--cluster-options", "nodes=2"])


def test_local_runs_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert LocalStarter(4)._environment()["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in LocalStarter(1)._environment()
