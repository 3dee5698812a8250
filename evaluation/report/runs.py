"""A run, as its directory describes it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from records.config import TrainConfig, learned_settings
from records.directory import RunDirectory, group_of, read_record
from records.state import saved_steps
from records.writers import STEP, read_progress

EVALUATIONS = "evaluations"
_LABEL_PARTS = re.compile("[,:] ")


@dataclass(frozen=True)
class Curve:
    """Training returns in the course of a run, at n places.

    Attributes:
        steps: Of all environments together.
        seconds: Of training until then, without the time in which the run was stopped.
        normalized: The mean over the games of the normalised training return, NaN where unknown.
        returns: The raw training return of each game.
    """

    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]
    normalized: NDArray[np.float64]
    returns: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """One run of train.py."""

    directory: RunDirectory
    config: TrainConfig

    @property
    def name(self) -> str:
        """Its path as it was given."""
        return str(self.directory)

    @property
    def checkpoint(self) -> Path:
        """What is evaluated: its newest checkpoint. Raises `UserError` if it has none."""
        return self.directory.newest_checkpoint()

    @property
    def evaluations(self) -> Path:
        """Folder for what reports evaluate."""
        return self.directory.path / EVALUATIONS

    @cached_property
    def steps(self) -> int:
        """Environment steps that it was meant to make, and those that had made the agent it began with."""
        origin = self.directory.read_origin()
        return self.config.total_steps + (0 if origin is None else int(origin["steps"]))

    @cached_property
    def saved(self) -> int:
        """Environment steps in its newest checkpoint."""
        return saved_steps(self.directory) or 0

    @property
    def finished(self) -> bool:
        """Whether it has made the steps it was meant to make."""
        return self.saved >= self.config.total_steps

    @cached_property
    def suite(self) -> dict[str, Any]:
        """What the suite that made it says about its runs; empty without one."""
        return read_record(self.directory.path.parent) or {}

    @property
    def group(self) -> str:
        """Its group in the suite that made it; "" without one."""
        return group_of(self.directory.path.name) if self.suite else ""

    @property
    def label(self) -> str:
        """What the suite that made it calls its group; "" without one."""
        labels = {item["group"]: item["label"] for item in self.suite.get("groups", [])}
        return str(labels.get(self.group, ""))

    @property
    def label_without_game(self) -> str:
        """Its label without the game that it plays alone: suites whose runs play different games name them by it."""
        parts = _LABEL_PARTS.split(self.label)
        other = [part for part in parts if (part,) != self.config.games]
        return self.label if len(other) == len(parts) else ", ".join(other)

    @cached_property
    def kind(self) -> tuple[tuple[str, str], ...]:
        """Equal for runs that differ in their seed alone or, with one game each, in seed and game.

        Runs that their suites call by different names are of different kinds, whatever their settings are: other
        programs than ours may have made them. The game of a run that plays one is no such difference.
        """
        varying = {"seed", "device"} | ({"games"} if len(self.config.games) == 1 else set())
        settings = learned_settings(self.config)
        found = ((name, repr(value)) for name, value in settings.items() if name not in varying)
        return (("label", self.label_without_game), *found)

    def curve(self) -> Curve:
        """Its training returns; empty if it has logged none."""
        rows: list[dict[str, str]] = []
        if self.directory.progress_file.is_file():
            rows = [row for row in read_progress(self.directory.progress_file) if row.get(STEP)]

        def column(name: str) -> NDArray[np.float64]:
            return np.array([float(row.get(name) or "nan") for row in rows])

        steps, speed = column(STEP), column("time/sps")
        seconds = np.cumsum(np.diff(steps, prepend=0.0) / speed)
        returns = {game: column(f"game/{game}/return") for game in self.config.games}
        return Curve(steps, seconds, column("rollout/normalized_mean"), returns)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which kinds of runs differ, by dotted name, with the value of each run."""
    settings = [learned_settings(run.config) for run in runs]
    names = dict.fromkeys(itertools.chain.from_iterable(settings))
    found = {name: [str(own.get(name, "-")) for own in settings] for name in names}
    return {
        name: values
        for name, values in found.items()
        if len(set(values)) > 1 and name not in ("seed", "games", "device")
    }
