"""How far the runs of a suite are, read from their directories."""

from __future__ import annotations

import csv
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from experiments.suites.plan import PlannedRun
from records.config import TrainConfig
from records.directory import RunDirectory, saved_steps
from records.writers import STEP

ASSUMED_SPEED = 400.0
"""Environment steps per second where nothing has been measured: one core of a present CPU."""


class Phase(enum.Enum):
    """What a run needs."""

    MISSING = "not started"
    UNFINISHED = "unfinished"
    FINISHED = "done"


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        phase: what it needs.
        saved: environment steps in its newest checkpoint; what a killed run goes on from.
        logged: environment steps of its newest entry in progress.csv.
        speed: environment steps per second of its latest entries; None where unknown.
    """

    phase: Phase
    saved: int = 0
    logged: int = 0
    speed: float | None = None


def status_of(planned: PlannedRun) -> Status:
    """Read the directory of a run. Raises `UserError` if its settings cannot be read."""
    run = planned.run
    if not run.config_file.is_file():
        return Status(Phase.MISSING)
    logged, speed = latest_entry(run.progress_file)
    phase = Phase.FINISHED if is_finished(run, planned.config) else Phase.UNFINISHED
    return Status(phase, saved_steps(run) or 0, logged, speed)


def is_finished(run: RunDirectory, config: TrainConfig) -> bool:
    """Whether a run has made its steps and has everything that comes after them."""
    saved = saved_steps(run)
    if saved is None or saved < config.total_steps:
        return False
    if config.evaluation_episodes is not None and not run.evaluation_file.exists():
        return False
    return not config.videos or all((run.videos / f"{game}.mp4").exists() for game in config.games)


def latest_entry(progress_file: Path) -> tuple[int, float | None]:
    """Steps of the last entry of progress.csv, and the speed over the last ones; 0 and None without any."""
    try:
        with progress_file.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        steps = [int(float(row[STEP])) for row in rows]
        speeds = [float(row["time/sps"]) for row in rows[-10:] if row.get("time/sps")]
    except (OSError, KeyError, ValueError):
        return 0, None
    # Harmonic: entries stand for equal numbers of steps.
    speed = len(speeds) / sum(1 / value for value in speeds) if speeds and min(speeds) > 0 else None
    return (steps[-1] if steps else 0), speed


def measured_speeds(runs: Iterable[Path]) -> dict[tuple[str, str], float]:
    """Environment steps per second by policy and algorithm, from runs made before (the newest of each counts)."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for path in runs:
        run = RunDirectory(path)
        try:
            config = run.read_config()
            changed = run.progress_file.stat().st_mtime
        except (OSError, UserError):
            continue
        _, speed = latest_entry(run.progress_file)
        key = (config.policy, config.algorithm)
        if speed is not None and (key not in found or changed > found[key][0]):
            found[key] = (changed, speed)
    return {key: speed for key, (_, speed) in found.items()}


def run_directories(root: Path) -> list[Path]:
    """Every run directly below `root`, or in a suite's directory below it."""
    return sorted(file.parent for pattern in ("*", "*/*") for file in root.glob(f"{pattern}/config.json"))
