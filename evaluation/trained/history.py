"""What has made an agent what it is: the training of its run, and of the agent that the run began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents import read_checkpoint
from evaluation.loading import find_checkpoint
from evaluation.report.runs import Run
from evaluation.trained import read_card, trained_checkpoint
from records.config import TrainConfig
from records.directory import RunDirectory

CURVE_POINTS = 100
"""Of one run; a curve that several runs add to has more."""
STEPS = "steps"


@dataclass(frozen=True)
class History:
    """Training, of all runs together that followed one another.

    Attributes:
        steps: environment steps.
        hours: in which the runs played and learned, saving and evaluating left out; none where that is not known.
        commands: that started and continued the runs.
        restarts: environment steps at which a run began with the weights of the one before, and nothing else of it.
        curve: mean training returns of each game's last 100 episodes, and the environment steps that they were taken
            after ("steps"); a return is none where no episode had ended, or the game was not played.
    """

    steps: int = 0
    hours: float | None = None
    commands: tuple[str, ...] = ()
    restarts: tuple[int, ...] = ()
    curve: dict[str, tuple[float | None, ...]] = field(default_factory=dict)

    def followed_by(self, run: History) -> History:
        """This, and then that of a run that began with the agent it made; the curve is that of the run's games."""
        earlier, later = self.curve.get(STEPS, ()), run.curve.get(STEPS, ())
        curve = {
            game: (*self.curve.get(game, (None,) * len(earlier)), *returns)
            for game, returns in run.curve.items()
            if game != STEPS
        }
        return History(
            self.steps + run.steps,
            None if self.hours is None or run.hours is None else round(self.hours + run.hours, 4),
            self.commands + run.commands,
            (*self.restarts, self.steps, *(self.steps + step for step in run.restarts)),
            {STEPS: (*earlier, *(self.steps + (step or 0) for step in later)), **curve},
        )

    def plain(self) -> dict[str, Any]:
        """As values of JSON, which `from_plain` reads back."""
        return asdict(self)


def from_plain(data: Mapping[str, Any]) -> History:
    """The history that `History.plain` made plain values; a card holds them, too."""
    return History(
        int(data["steps"]),
        data["hours"],
        tuple(data["commands"]),
        tuple(data.get("restarts", ())),
        {name: tuple(values) for name, values in data["curve"].items()},
    )


def history_of(start: str) -> History:
    """The history of the agent that `start` names, as `find_checkpoint` takes it.

    Raises:
        UserError: there is no such agent.
    """
    path = find_checkpoint(start)
    if path == trained_checkpoint(start):
        return from_plain(read_card(start))
    steps = int(read_checkpoint(path)["run"]["num_timesteps"])
    run = RunDirectory(path.parent.parent)
    if not run.config_file.is_file():
        return History(steps)
    return history_of_run(run, run.read_config(), steps)


def history_of_run(run: RunDirectory, config: TrainConfig, steps: int) -> History:
    """The history of a run's agent after `steps` environment steps of the run, its origin's included."""
    curve = Run(run, config).curve()
    until = curve.steps <= steps
    stride = max(1, -(-int(until.sum()) // CURVE_POINTS))
    kept = slice(stride - 1, int(until.sum()), stride)
    commands = run.path / "command.txt"
    own = History(
        steps,
        round(float(curve.seconds[until][-1]) / 3600, 4) if until.any() else None,
        tuple(commands.read_text(encoding="utf-8").splitlines()) if commands.is_file() else (),
        (),
        {
            STEPS: tuple(curve.steps[kept].astype(int).tolist()),
            **{game: _plain(curve.returns[game][kept]) for game in config.games},
        },
    )
    origin = run.read_origin()
    return own if origin is None else from_plain(origin).followed_by(own)


def _plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(round(float(value), 3) if np.isfinite(value) else None for value in values)
