"""Train for a long time on the smallest network and watch what must stay flat: memory, open files, threads, logs.

python -m benchmarks.soak --minutes 30 --out benchmarks/results/soak.json
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe_machine
from common.cli import run_with_options
from records.directory import RunDirectory

REPOSITORY = Path(__file__).resolve().parent.parent
OPTIONS = (
    "quick --policy feedforward --games bigfish maze --num-envs 16 --encoder.channels 4 --encoder.hidden 16 "
    "--device cpu --agent.rollout-steps 20 --total-steps 1_000_000_000 --torch-threads 1 --env-threads 0 "
    "--log-every-steps 10_000 --checkpoint-every-steps none --checkpoint-every-minutes 1 "
    "--evaluation-episodes none --no-videos"
)


@dataclass(frozen=True)
class Soak:
    """Options.

    Attributes:
        minutes: of training.
        every_seconds: between two measurements.
        out: file for the measurements; none only prints them.
    """

    minutes: float = 30.0
    every_seconds: float = 30.0
    out: Path | None = None


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment.

    Attributes:
        minute: since the process began.
        resident_mb: memory.
        open_files: file descriptors.
        threads: of the process.
        steps: environment steps made, as logged.
        csv_kb: size of progress.csv.
        tensorboard_kb: size of the TensorBoard files.
        checkpoints: number of checkpoint files.
    """

    minute: float
    resident_mb: float
    open_files: int
    threads: int
    steps: int
    csv_kb: float
    tensorboard_kb: float
    checkpoints: int


def sample(pid: int, began: float, run: RunDirectory) -> Sample:
    """Look at process `pid`, which trains in `run`."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    )
    return Sample(
        minute=round((time.monotonic() - began) / 60, 2),
        resident_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
        open_files=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208  (only their number matters)
        threads=int(status["Threads"]),
        steps=_last_step(run.progress_file),
        csv_kb=round(_size(run.progress_file) / 1024, 1),
        tensorboard_kb=round(sum(_size(path) for path in run.tensorboard.glob("*")) / 1024, 1),
        checkpoints=len(run.checkpoint_files()),
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_step(progress: Path) -> int:
    lines = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0


def main(options: Soak) -> None:
    """Run the soak, print and store what was measured."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    run = RunDirectory(folder / "run")
    command = [sys.executable, "train.py", *OPTIONS.split(), "--run-dir", str(run.path)]
    samples: list[Sample] = []
    began = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output)
        try:
            while time.monotonic() - began < 60 * options.minutes and process.poll() is None:
                time.sleep(options.every_seconds)
                samples.append(sample(process.pid, began, run))
                print(samples[-1], flush=True)
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=120)
        finally:
            process.kill()
            process.wait()
    result = {
        "command": f"python -m benchmarks.soak --minutes {options.minutes:g}",
        "machine": describe_machine(),
        "training": f"python train.py {OPTIONS}",
        "exit_code": code,
        "seconds_from_sigterm_to_exit": round(time.monotonic() - asked, 2),
        # The first minutes fill caches and the windows of episodes.
        "after_5_minutes": asdict(next((s for s in samples if s.minute >= 5), samples[0])),
        "at_the_end": asdict(samples[-1]),
        "most_resident_mb": max(s.resident_mb for s in samples),
        "most_open_files": max(s.open_files for s in samples),
        "samples": [asdict(s) for s in samples],
    }
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(run_with_options(Soak, main, "python -m benchmarks.soak"))
