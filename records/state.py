"""How far a run is, read from its directory."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import read_json
from records.config import TrainConfig
from records.continual import BOUNDARY, FILE, ContinualLog
from records.directory import RunDirectory, checkpoint_step
from records.writers import STEP, read_progress

Kind = tuple[str, str, str]
"""What decides most of a run's speed: the names of its core, encoder and algorithm."""
Speeds = dict[Kind, float]
"""Environment steps per second by kind of run."""


class Phase(enum.Enum):
    """What a run needs."""

    MISSING = "not started"
    UNFINISHED = "unfinished"
    FINISHED = "done"


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        phase: Finished is a run that has made its steps and has everything that comes after them: scores of its last
            checkpoint and videos, where they were asked for.
        saved: Environment steps in its newest checkpoint, which a killed run goes on from.
        logged: Environment steps of its newest entry in progress.csv.
        speed: Environment steps per second of its latest entries; None where unknown.
    """

    phase: Phase
    saved: int = 0
    logged: int = 0
    speed: float | None = None

    @property
    def reached(self) -> int:
        """Environment steps that it has made, as far as its files tell."""
        return max(self.saved, self.logged)


def state_of(run: RunDirectory, config: TrainConfig) -> RunState:
    """How far `run` is, which is to be made with the settings `config`."""
    if not run.config_file.is_file():
        return RunState(Phase.MISSING)
    logged, speed = latest_entry(run)
    phase = Phase.FINISHED if is_finished(run, config) else Phase.UNFINISHED
    return RunState(phase, saved_steps(run), logged, speed)


def saved_steps(run: RunDirectory) -> int:
    """Environment steps in the newest checkpoint; 0 without one."""
    files = run.checkpoint_files()
    return checkpoint_step(files[-1]) if files else 0


def is_finished(run: RunDirectory, config: TrainConfig, step: int | None = None) -> bool:
    """Whether `run` has nothing left to do; `step` of its newest usable checkpoint, None for the newest there is."""
    step = saved_steps(run) if step is None else step
    if step < config.total_steps:
        return False
    evaluated = config.evaluation_episodes is None or _evaluated_step(run) == step
    if config.sequence.active and not _every_stage_measured(run, config):
        return False
    recorded = not config.videos or all((run.videos / f"{game}.mp4").exists() for game in config.games)
    return evaluated and recorded


def _evaluated_step(run: RunDirectory) -> int | None:
    """The environment step that the stored scores belong to: they may be of before the run was extended."""
    try:
        data = read_json(run.evaluation_file)
        return checkpoint_step(Path(data["checkpoint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _every_stage_measured(run: RunDirectory, config: TrainConfig) -> bool:
    """Whether all tasks were scored at the end of the last stage."""
    try:
        measured = ContinualLog(run.path / FILE).read()
    except OSError:
        return False
    last = config.plan.stages[-1].number
    places = {(one.task, one.split) for one in measured if (one.kind, one.stage) == (BOUNDARY, last)}
    wanted = {(str(task), split) for task in config.tasks for split in config.sequence.evaluation_splits}
    return wanted <= places


def latest_entry(run: RunDirectory) -> tuple[int, float | None]:
    """Steps of the last entry of progress.csv, and the speed over the last ones; 0 and None without any."""
    try:
        rows = read_progress(run.progress_file)
        steps = [int(float(row[STEP])) for row in rows]
        speeds = [float(row["time/sps"]) for row in rows[-10:] if row.get("time/sps")]
    except (OSError, KeyError, ValueError, OverflowError):
        return 0, None
    # Harmonic: entries stand for equal numbers of steps.
    speed = len(speeds) / sum(1 / value for value in speeds) if speeds and min(speeds) > 0 else None
    return (steps[-1] if steps else 0), speed or None


def kind_of(config: TrainConfig) -> Kind:
    """The names of a run's core, encoder and algorithm."""
    return config.policy_name, config.encoder_name, config.algorithm_name


def measured_speeds(runs: Iterable[Path]) -> Speeds:
    """The speeds of runs made before; the newest of each kind counts."""
    found: dict[Kind, tuple[float, float]] = {}
    for path in runs:
        run = RunDirectory(path)
        try:
            config = run.read_config()
            changed = run.progress_file.stat().st_mtime
        except (OSError, UserError):
            continue
        _, speed = latest_entry(run)
        key = kind_of(config)
        if speed is not None and (key not in found or changed > found[key][0]):
            found[key] = (changed, speed)
    return {key: speed for key, (_, speed) in found.items()}


def run_directories(root: Path) -> list[Path]:
    """Every run directly below `root`, or in a suite's directory below it."""
    return sorted(file.parent for pattern in ("*", "*/*") for file in root.glob(f"{pattern}/config.json"))
