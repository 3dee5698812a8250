"""Checkpoints in the course of a run and at its end."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from experiments.run_directory import RunDirectory


class SaveCheckpoints(BaseCallback):
    """Saves every so many environment steps, between two rollouts, and when training ends or is stopped.

    A checkpoint is the state at the start of a rollout, and its file is named after the step of that start.
    """

    def __init__(self, run: RunDirectory, every_steps: int | None) -> None:
        """`every_steps` None saves at the end only."""
        super().__init__()
        self._run = run
        self._every_steps = every_steps
        self._saved: Path | None = None
        self._next = 0
        self._rollout_start: int | None = None

    @property
    def saved(self) -> Path | None:
        """The latest checkpoint of this callback."""
        return self._saved

    def _on_training_start(self) -> None:
        if self._every_steps is not None:
            self._next = (self.model.num_timesteps // self._every_steps + 1) * self._every_steps

    def _on_rollout_start(self) -> None:
        self._rollout_start = step = self.model.num_timesteps
        if self._every_steps is not None and step >= self._next:
            self._save(step)
            self._next = (step // self._every_steps + 1) * self._every_steps

    def _on_rollout_end(self) -> None:
        self._rollout_start = None

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # A rollout that was abandoned does not count.
        self._save(self.model.num_timesteps if self._rollout_start is None else self._rollout_start)

    def _save(self, step: int) -> None:
        path = self._run.checkpoint_at(step)
        if not path.exists():
            self.model.save(path)
        self._saved = path
