"""The learning of a run: logs, checkpoints, and what is left of it when something goes wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import CallbackList

from agents import Agent
from agents.numerics import NotFinite
from common.errors import RunError, UserError
from experiments.checkpoints import CheckpointFailure, SaveCheckpoints
from experiments.progress import training_progress
from experiments.stopping import StopOnRequest, StopRequest
from experiments.training_videos import TrainingVideos
from records.config import TrainConfig
from records.directory import RunDirectory, UsableCheckpoint
from records.lock import RunLock
from records.writers import make_logger, sync

logger = logging.getLogger(__name__)


class Training:
    """Trains an agent in a run directory; makes nothing before `learn`.

    Args:
        agent: as it was in `checkpoint`, or fresh.
        config: settings of the run.
        run: where logs and checkpoints go.
        lock: held on `run`.
        checkpoint: that the run goes on from; None for a new run.
        console: where progress is shown.
    """

    def __init__(
        self,
        agent: Agent,
        config: TrainConfig,
        run: RunDirectory,
        lock: RunLock,
        checkpoint: UsableCheckpoint | None,
        console: Console,
    ) -> None:
        self._agent, self._config, self._run, self._lock = agent, config, run, lock
        self._resumed_from = None if checkpoint is None else checkpoint.path
        self._console = console
        self._checkpoints: SaveCheckpoints | None = None

    def learn(self, request: StopRequest) -> Path:
        """Train to the end, or until a request; returns the last checkpoint.

        Raises:
            RunError: training cannot go on; the message says what was saved.
            UserError: another run has taken the directory, or there is not enough memory.
            OSError: the logs cannot be begun.
        """
        agent, config, run = self._agent, self._config, self._run
        start = agent.num_timesteps
        if self._resumed_from is not None and start >= config.total_steps:
            return self._resumed_from
        log = make_logger(run.progress_file, run.tensorboard, None if self._resumed_from is None else start)
        agent.set_logger(log)

        def before_saving() -> None:
            run.restore(config)
            self._lock.renew()
            sync(log)

        self._checkpoints = SaveCheckpoints(
            run,
            config.checkpoint_every_steps,
            config.checkpoint_every_minutes,
            config.keep_checkpoints,
            self._resumed_from,
            before_saving,
        )
        progress = training_progress(config.total_steps, self._console)
        callbacks = [progress, self._checkpoints, TrainingVideos(config, run), StopOnRequest(request)]
        try:
            agent.learn(
                config.total_steps - start,
                CallbackList(callbacks),
                log_interval=max(1, round(config.log_every_steps / config.steps_per_rollout)),
                reset_num_timesteps=self._resumed_from is None,
            )
        except (UserError, CheckpointFailure):
            raise
        except RunError as error:
            hint = " (--on-nan skip goes on without such updates)" if isinstance(error, NotFinite) else ""
            raise RunError(f"{error}; {self.save_in_need()}; continue with --resume{hint}") from error
        except Exception as error:
            outcome = self.save_in_need()
            if _is_out_of_memory(error):
                raise UserError(
                    f"out of memory ({first_line(error)}): use fewer environments, shorter rollouts or a smaller "
                    f"network; {outcome}"
                ) from error
            logger.error("%s", outcome)
            raise
        finally:
            progress.close()
            log.close()
        assert self._checkpoints.saved is not None
        return self._checkpoints.saved

    def save_in_need(self) -> str:
        """Save what can be saved, from any thread; returns what to say about it."""
        checkpoints = self._checkpoints
        if checkpoints is None or not hasattr(checkpoints, "model"):
            return f"the last checkpoint is {self._resumed_from}"
        try:
            return f"saved {checkpoints.save_last()}"
        except (RunError, UserError) as error:
            return str(error)
        except Exception as error:  # the device may be lost; whatever it is, it must not hide what came first
            last = f"the last one is {checkpoints.saved}" if checkpoints.saved else "there is none before it"
            return f"no checkpoint could be saved ({first_line(error)}), {last}"


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, or its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
