"""Checkpoints in the course of a run and at its end: when they are written, which are kept, which is the best."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from agents import Agent
from agents.checkpoint import read_layout
from agents.exchange import Exchange
from common.errors import RunError, UserError
from common.files import partial_path, read_json, write_json
from common.stages import stage
from records.directory import RunDirectory, checkpoint_step

RETRY_SECONDS = 60.0
"""Between two attempts to write where writing has failed."""
END_TRIES = 3
END_PAUSE_SECONDS = 1.0
"""At the end of a run, which somebody may be waiting for."""

logger = logging.getLogger(__name__)


class CheckpointFailure(RunError):  # noqa: N818  (as a failed write is called)
    """The last checkpoint of a run could not be written."""


class SaveCheckpoints(BaseCallback):
    """Saves every so many environment steps and minutes, between two rollouts, and when training ends or is stopped.

    A checkpoint is the state at the start of a rollout, and its file is named after the step of that start. Where
    it cannot be written, training goes on, and it is tried again every minute.
    """

    def __init__(
        self,
        run: RunDirectory,
        every_steps: int | None,
        every_minutes: float | None = None,
        keep: int | None = None,
        resumed_from: Path | None = None,
        before: Callable[[], None] = lambda: None,
        milestones: Collection[int] | None = None,
    ) -> None:
        """Nothing is written until training begins.

        Args:
            run: where checkpoints go.
            every_steps: environment steps between two of them.
            every_minutes: after which one is written even before that.
            keep: the newest so many are kept, and the best; None keeps all.
            resumed_from: the checkpoint that training goes on from.
            before: called before each attempt to save; may raise `OSError` too.
            milestones: steps whose checkpoints are kept in any case, such as the ends of stages. Where there are some,
                scores of different times are of different games, and none is called the best.
        """
        super().__init__()
        self.saved = resumed_from  # the latest checkpoint
        self._run = run
        self._every_steps = every_steps
        self._every_seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._keep = keep
        self._before = before
        self._next_step = math.inf
        self._last_time = self._retry_time = 0.0
        self._failing = False
        self._best = BestCheckpoint(run)
        self._milestones = milestones

    @property
    def _agent(self) -> Agent:
        assert isinstance(self.model, Agent)
        return self.model

    @property
    def _exchange(self) -> Exchange:
        return self._agent.exchange

    def _on_training_start(self) -> None:
        self._last_time = time.monotonic()
        self._plan_next(self._agent.checkpoint_step)
        if self._exchange.is_first:
            self._best.load(self._agent.checkpoint_step)

    def _plan_next(self, step: int) -> None:
        if self._every_steps is not None:
            self._next_step = (step // self._every_steps + 1) * self._every_steps

    def _on_rollout_start(self) -> None:
        # Clocks differ: that of process 0 decides.
        if self._exchange.any(self._exchange.is_first and self._due()):
            self._save_or_wait()

    def _due(self) -> bool:
        now = time.monotonic()
        if self._failing:
            return now >= self._retry_time
        return self._agent.checkpoint_step >= self._next_step or now - self._last_time >= self._every_seconds

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.save_last()

    def save_last(self) -> Path:
        """Save as training ends, whatever ended it.

        Raises:
            CheckpointFailure: it cannot be written; the message names the last one that could.
        """
        for attempt in range(END_TRIES):
            if attempt:
                time.sleep(END_PAUSE_SECONDS)
            try:
                return self._save()
            except OSError as error:
                why = reason(error)
        raise CheckpointFailure(
            f"the checkpoint of step {self._agent.checkpoint_step} could not be saved ({why}), {self._last_good}: "
            f"see to {self._run} and continue with --resume"
        )

    def save_in_need(self, agreed: bool = False) -> str:
        """Save what can be saved, from any thread; returns what to say about it.

        A process that others share the run with cannot save alone: it can if all of them do, which is `agreed`.
        """
        # Without a model, training has not begun.
        if not hasattr(self, "model") or (self._exchange.size > 1 and not agreed):
            return f"the last checkpoint is {self.saved}"
        try:
            return f"saved {self.save_last()}"
        except (RunError, UserError) as error:
            return str(error)
        except Exception as error:  # the device may be lost; whatever it is, it must not hide what came first
            return f"no checkpoint could be saved ({reason(error)}), {self._last_good}"

    @property
    def _last_good(self) -> str:
        return f"the last good one is {self.saved}" if self.saved else "there is none before it"

    def _save_or_wait(self) -> None:
        """Save, or say why not and when it is tried again."""
        try:
            path = self._save()
        except OSError as error:
            self._failing = True
            self._retry_time = time.monotonic() + RETRY_SECONDS
            logger.warning(
                "warning: the checkpoint of step %d could not be saved (%s): training goes on, %s; next try in %.0f s",
                *(self._agent.checkpoint_step, reason(error), self._last_good, RETRY_SECONDS),
            )
            return
        if self._failing:
            self._failing = False
            logger.warning("checkpoints can be saved again: %s", path)

    @stage("saving")
    def _save(self) -> Path:
        self._exchange.on_first(self._before)
        step = self._agent.checkpoint_step
        path = self._run.checkpoint_at(step)
        # What stands under this name may be of an earlier life of the run: only what was written or read is trusted.
        if self._exchange.on_first(lambda: path != self.saved or not path.exists()):
            self._agent.save(path)
        self.saved = path
        self._last_time = time.monotonic()
        self._plan_next(step)
        if self._exchange.is_first:
            self._tidy(path)
        return path

    def _tidy(self, path: Path) -> None:
        """Note whether `path` is the best so far, and delete what is not kept."""
        if self._milestones is None:
            self._best.offer(path, self._agent.training_score)
        if self._keep is not None:
            milestones = {self._run.checkpoint_at(step) for step in self._milestones or ()}
            prune(self._run, self._keep, {self._best.path, *milestones})
        if self._agent.retention.keeps_files:
            prune_replay(self._agent, self._run)


class BestCheckpoint:
    """The checkpoint with the highest normalised return in training.

    That is the mean over games of the normalised returns of the latest 100 episodes of each, and is compared as soon
    as every game has ended so many. ``best.json`` names it, ``best.ckpt`` links to it.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self.path: Path | None = None
        self._score = float("-inf")

    def load(self, up_to_step: int) -> None:
        """Take up what an earlier life of the run found, unless it lies beyond `up_to_step`."""
        try:
            stored = read_json(self._run.best_file)
            # The name alone: it may lead nowhere else.
            path = self._run.checkpoints / Path(str(stored["checkpoint"])).name
            score = float(stored["normalized_return"])
            if path.exists() and checkpoint_step(path) <= up_to_step:
                self.path, self._score = path, score
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            pass  # none, or damaged: the best is looked for anew

    def offer(self, path: Path, score: float | None) -> None:
        """Take `path` if its `score` is the highest so far."""
        if score is None or score <= self._score:
            return
        self.path, self._score = path, score
        try:
            write_json(self._run.best_file, {"checkpoint": path.name, "normalized_return": score})
            link = self._run.checkpoints / "best.ckpt"
            partial = partial_path(link)
            partial.symlink_to(path.name)
            os.replace(partial, link)
        except OSError as error:
            logger.warning("warning: could not note that %s is the best so far (%s)", path, reason(error))


def prune(run: RunDirectory, keep: int, others: Collection[Path | None]) -> None:
    """Delete all checkpoints but the newest `keep` and `others`."""
    for path in run.checkpoint_files()[:-keep]:
        if path not in others:
            with contextlib.suppress(OSError):
                path.unlink()


def prune_replay(agent: Agent, run: RunDirectory) -> None:
    """Delete the stored unrolls that neither the agent nor a checkpoint of the run names."""
    # One that cannot be read may need anything.
    with contextlib.suppress(UserError, KeyError, TypeError):
        files = {path: read_layout(path) for path in run.checkpoint_files()}
        agent.retention.prune({path: content["learner"]["retention"] for path, content in files.items()})


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
