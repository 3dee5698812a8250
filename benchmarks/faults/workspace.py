"""Where faults are tried, and a run that nothing happens to, for comparison."""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents import CheckpointError, read_checkpoint
from benchmarks.faults.artifacts import Artifacts
from benchmarks.faults.process import Process, start
from records.directory import RunDirectory


@dataclass
class Outcome:
    """How often a fault was tried and survived, and what else is worth telling."""

    tried: int = 0
    survived: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def count(self, problems: list[str]) -> None:
        """One more attempt, survived if there are no `problems`."""
        self.tried += 1
        self.survived += not problems
        if problems:
            self.more.setdefault("problems", []).append(problems[:5])


class Workspace:
    """Where faults happen, and a run that nothing happens to."""

    def __init__(
        self,
        folder: Path,
        kills: int,
        flips: int,
        mutations: int,
        seed: int,
        jobs: int = 1,
        minutes: float = math.inf,
    ) -> None:
        self.folder, self.kills, self.flips, self.mutations = folder, kills, flips, mutations
        self.jobs, self.minutes = jobs, minutes
        self.random = random.Random(seed)
        self._number = 0

    def run(self, folder: Path | None = None) -> RunDirectory:
        """A run directory that does not exist yet."""
        self._number += 1
        return RunDirectory((folder or self.folder) / f"run{self._number}")

    def output(self, run: RunDirectory) -> Path:
        """Where a run prints."""
        return self.folder / f"{run.path.name}.txt"

    def start(self, run: RunDirectory, prepare: Callable[[], None] = lambda: None, **changes: Any) -> Process:
        """See `process.start`."""
        return start(run, self.output(run), prepare, **changes)

    @functools.cached_property
    def undisturbed(self) -> RunDirectory:
        """A run that ended by itself."""
        run = self.run()
        process = self.start(run)
        code = process.wait()
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}: {process.output.read_text()}")
        self.seconds = time.monotonic() - process.began
        return run

    @functools.cached_property
    def reference(self) -> Artifacts:
        """What the undisturbed run left."""
        return Artifacts.of(self.undisturbed)

    def finish(self, run: RunDirectory) -> list[str]:
        """Continue `run` to its end; what is wrong with it then."""
        process = self.start(run)
        if not has_ended(process, code := process.wait()):
            return [f"ended with {code}: {process.output.read_text()[-300:]}"]
        return self.compare(run)

    def compare(self, run: RunDirectory) -> list[str]:
        """How `run`, which has ended, differs from the undisturbed one."""
        return self.reference.differences(Artifacts.of(run))


def has_ended(process: Process, code: int | None) -> bool:
    """Whether the run that `process` was to continue has come to its end; a kill may come after everything was done."""
    return code == 0 or (code == 2 and "has ended at" in process.output.read_text())


def unreadable_checkpoints(run: RunDirectory) -> list[str]:
    """What is wrong with the checkpoints of `run`, a line each."""
    found = []
    for path in run.checkpoint_files():
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            found.append(str(error))
    return found
