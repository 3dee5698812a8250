"""Start a run or continue it: environments, agent, logs, checkpoints, and what comes at the end."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from agents import ALGORITHMS, Agent
from agents.device import peak_memory
from agents.numerics import NotFinite
from common.errors import RunError, UserError, raise_problems
from experiments.checkpoints import CheckpointFailure, SaveCheckpoints, reason
from experiments.command_line import PROGRAM, Launch, Resume, parse
from experiments.continual_evaluation import ContinualEvaluation
from experiments.curriculum import Curriculum, current_stage, make_environments
from experiments.progress import TrainingProgress
from experiments.scores_and_videos import TrainingVideos, evaluate_and_record
from experiments.start import begin_with, read_start
from experiments.stopping import (
    Heartbeat,
    StopOnRequest,
    Stopped,
    StopRequest,
    Watchdog,
    patient_output,
)
from records.config import TrainConfig, from_json, learned_settings, to_json
from records.continual import FILE
from records.directory import RunDirectory, UsableCheckpoint, new_path
from records.lock import RunLock
from records.replay import replay_problems
from records.sequence import Stage
from records.state import is_finished
from records.writers import make_logger, sync

MAY_CHANGE = ("total_steps", "agent.on_nan")
"""Settings besides the incidental ones that a run may be continued with another value of."""

logger = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> int:
    """The command line of train.py, or the one that `words` give; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
    """
    words = sys.argv[1:] if words is None else list(words)
    command = parse(words)
    match command:
        case None:
            return 0
        case Launch(name, config, run_dir):
            path = new_path(name, config) if run_dir is None else Path(run_dir)
            return train(config, path, command=[*PROGRAM.split(), *words])
        case Resume(run_dir, total_steps, on_nan):
            return resume(run_dir, total_steps, on_nan, command=[*PROGRAM.split(), *words])


def train(config: TrainConfig, run_dir: str | Path, *, command: Sequence[str] = ()) -> int:
    """Train from scratch and evaluate.

    Args:
        run_dir: must not exist.
        command: what to write down as the command that started the run.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        UserError: the settings contradict one another, or the directory exists.
        OSError: the directory cannot be written.
        RunError: numbers are not finite, or the last checkpoint cannot be written; what could be saved is saved.
    """
    config.check()
    raise_problems(replay_problems(config, Path(run_dir)))
    if config.env_groups is None:
        # Stored as it is now, so that the run can be continued on another device.
        config = replace(config, env_groups=2 if get_device(config.device).type == "cuda" else 1)
    read_start(config)  # while nothing has been created yet
    run = RunDirectory(run_dir)
    run.create(config, command)
    with run.lock as lock:
        return _run(config, run, lock, None)


def resume(
    run_dir: str | Path,
    total_steps: int | None = None,
    on_nan: str | None = None,
    *,
    command: Sequence[str] = (),
) -> int:
    """Continue a run from its newest whole checkpoint with its stored settings, then evaluate; returns as `train`.

    With the same `total_steps` and on a CPU, the result is that of a run that was never interrupted. A learning rate
    that decays is spread over the new `total_steps`. A run that was killed before its first checkpoint begins anew.

    Args:
        total_steps: environment steps at which it shall now end; None for the stored number.
        on_nan: what to do from now on when numbers are not finite; None for what is stored.

    Raises:
        UserError: it is not a run, none of its checkpoints is whole, another process is training it, or it has ended.
        RunError: as for `train`.
    """
    run = RunDirectory(run_dir)
    run.read_config()  # before anything is written there
    with run.lock as lock:
        config = run.read_config()
        if total_steps is not None:
            config = replace(config, total_steps=total_steps)
        if on_nan is not None:
            config = replace(config, agent=replace(config.agent, on_nan=on_nan))
        config.check()
        checkpoint = run.usable_checkpoint()
        if checkpoint is not None:
            _check_same_run(checkpoint, config)
            if is_finished(run, config, checkpoint.step):
                raise UserError(
                    f"{run} has ended at {checkpoint.step} of {config.total_steps} steps: "
                    "extend it with a larger --total-steps"
                )
        run.remove_leftovers()
        run.write_config(config)
        run.add_command(command)
        return _run(config, run, lock, checkpoint)


def _check_same_run(checkpoint: UsableCheckpoint, config: TrainConfig) -> None:
    """Refuse a checkpoint of another program, or of other settings than those stored in the run directory."""
    if checkpoint.content["run"].get("env") is None:
        raise UserError(
            f"{checkpoint.path} holds no episodes to go on with: {PROGRAM} did not train this run; "
            "continue it with the program in its command.txt"
        )
    try:
        made_with = from_json(checkpoint.content["experiment"])
    except UserError as error:
        raise UserError(f"{checkpoint.path} was made with settings that cannot be used: {error}") from error
    before, now = learned_settings(made_with), learned_settings(config)
    differing = [name for name in now if name not in MAY_CHANGE and before.get(name) != now[name]]
    if differing:
        raise UserError(
            f"{checkpoint.path} belongs to another run than its directory: config.json differs in "
            f"{', '.join(differing)}"
        )


def _run(config: TrainConfig, run: RunDirectory, lock: RunLock, checkpoint: UsableCheckpoint | None) -> int:
    with patient_output():
        return _run_patiently(config, run, lock, checkpoint)


def _run_patiently(
    config: TrainConfig, run: RunDirectory, lock: RunLock, checkpoint: UsableCheckpoint | None
) -> int:
    console = Console(markup=False, highlight=False)
    request = StopRequest()
    with request.listening():
        verb = "Training" if checkpoint is None else f"Continuing {checkpoint.path.name}:"
        console.print(
            f"{verb} {config.policy_name} with {config.algorithm_name} on {_what_is_played(config)}, "
            f"{config.num_envs} environments, {config.total_steps:,} steps\n"
            f"Everything goes to {run}",
            soft_wrap=True,
        )
        if config.torch_threads is not None:
            torch.set_num_threads(config.torch_threads)
        state = None if checkpoint is None else checkpoint.content["run"]
        stage = current_stage(config, state) if config.sequence.active else None
        env = make_environments(config, stage)
        try:
            agent = _make_agent(config, env, checkpoint)
            agent.retention.use_directory(run.replay)
            _describe(agent, console)
            agent.stop_when = lambda: request.asked
            agent.diagnostics = run.diagnostics
            checkpoints = _save_checkpoints(agent, config, run, lock, checkpoint)
            beat = Heartbeat(request)
            with Watchdog(
                config.watchdog_minutes,
                lambda: (*agent.movement, beat.count),
                run.diagnostics,
                checkpoints.save_in_need,
            ):
                if checkpoint is None or stage is not None or agent.num_timesteps < config.total_steps:
                    _learn(agent, config, run, checkpoints, request, console, stage, beat)
                env.close()
                saved = checkpoints.saved
                assert saved is not None
                if not request.asked:
                    with contextlib.suppress(Stopped):
                        evaluate_and_record(agent, config, run, saved, console, beat)
        finally:
            env.close()
    if request.asked:
        reached = f"{agent.num_timesteps:,} of {config.total_steps:,} steps"
        console.print(f"Stopped at {reached}; saved {saved}", soft_wrap=True)
        console.print(f"Continue with: {PROGRAM} --resume {run}", soft_wrap=True)
        return request.exit_code
    _conclude(config, run, saved, console)
    return 0


def _what_is_played(config: TrainConfig) -> str:
    if not config.sequence.active or config.sequence.joint:
        return f"{', '.join(config.games)} ({config.mode}, levels {config.levels})"
    stages = len(config.plan.stages)
    return f"{', '.join(map(str, config.tasks))}, one after another in {stages} stages ({config.retention})"


def _make_agent(config: TrainConfig, env: VecEnv, checkpoint: UsableCheckpoint | None) -> Agent:
    algorithm = ALGORITHMS[config.algorithm_name]
    if checkpoint is None:
        agent = algorithm(
            config.policy,
            env,
            config.agent,
            retention=config.retention,
            retain=config.retain,
            seed=config.seed,
            device=config.device,
        )
        if (weights := read_start(config)) is not None:
            begin_with(agent, weights)
    else:
        agent = algorithm.from_content(
            checkpoint.content, str(checkpoint.path), env, config.device, force_reset=False
        )
        agent.config = replace(agent.config, on_nan=config.agent.on_nan)
    agent.experiment = to_json(config)
    return agent


def _save_checkpoints(
    agent: Agent, config: TrainConfig, run: RunDirectory, lock: RunLock, checkpoint: UsableCheckpoint | None
) -> SaveCheckpoints:
    def before_saving() -> None:
        run.restore(config)
        lock.renew()
        sync(agent.logger)

    return SaveCheckpoints(
        run,
        config.checkpoint_every_steps,
        config.checkpoint_every_minutes,
        config.keep_checkpoints,
        None if checkpoint is None else checkpoint.path,
        before_saving,
        config.plan.boundaries() if config.sequence.active else None,
    )


def _learn(
    agent: Agent,
    config: TrainConfig,
    run: RunDirectory,
    checkpoints: SaveCheckpoints,
    request: StopRequest,
    console: Console,
    stage: Stage | None,
    beat: Heartbeat,
) -> None:
    """Train to the end, or until a request; whatever happens, the last state is saved if that is possible.

    `stage` is the one that a sequence stands in.

    Raises:
        RunError: training cannot go on; the message says what was saved.
        UserError: another run has taken the directory, or there is not enough memory.
        OSError: the logs cannot be begun.
    """
    start, is_new = agent.num_timesteps, checkpoints.saved is None
    log = make_logger(run.progress_file, run.tensorboard, None if is_new else start)
    agent.set_logger(log)
    progress = TrainingProgress(config.total_steps, console)
    callbacks: list[BaseCallback] = [
        progress,
        checkpoints,
        TrainingVideos(config, run),
        StopOnRequest(request),
    ]
    log_interval = max(1, round(config.log_every_steps / config.steps_per_rollout))

    def learn(steps: int, is_new: bool) -> None:
        agent.learn(steps, CallbackList(callbacks), log_interval, reset_num_timesteps=is_new)

    try:
        if stage is None:
            learn(config.total_steps - start, is_new)
        else:
            evaluation = ContinualEvaluation(config, run, beat)
            evaluation.continue_from(None if is_new else start)
            callbacks.insert(2, evaluation)
            Curriculum(config, agent, stage, evaluation, learn, lambda: request.asked).follow(is_new)
    except (UserError, CheckpointFailure):
        raise
    except RunError as error:
        hint = " (--on-nan skip goes on without such updates)" if isinstance(error, NotFinite) else ""
        raise RunError(f"{error}; {checkpoints.save_in_need()}; continue with --resume{hint}") from error
    except Exception as error:
        outcome = checkpoints.save_in_need()
        if _is_out_of_memory(error):
            raise UserError(
                f"out of memory ({reason(error)}): use fewer environments, shorter rollouts or a smaller network; "
                f"{outcome}"
            ) from error
        logger.error("%s", outcome)
        raise
    finally:
        progress.close()
        log.close()
        if agent.env is not None:
            agent.env.close()


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _describe(agent: Agent, console: Console) -> None:
    """Say what runs where: the device, and the versions of the core's operators."""
    acting, learning = (agent.policy.implementations(steps) for steps in (1, agent.config.rollout_steps))
    versions = [f"; {name}: {acting[name]} for acting, {learning[name]} for learning" for name in acting]
    console.print(f"On {agent.device}{''.join(versions)}", soft_wrap=True)


def _conclude(config: TrainConfig, run: RunDirectory, saved: Path, console: Console) -> None:
    """Say where everything is and what to do next."""
    places = [
        ("checkpoint", saved),
        ("scores", run.evaluation_file),
        ("all tasks", run.path / FILE),
        ("videos", run.videos),
        ("curves", run.progress_file),
        ("TensorBoard", run.tensorboard),
        ("settings", run.config_file),
    ]
    console.print(f"Peak memory: {peak_memory()['peak_gb']:.1f} GB")
    console.print()
    for what, path in places:
        if path.exists():
            console.print(f"  {what:12}{path}", soft_wrap=True)
    commands = [
        ("watch the curves", f"tensorboard --logdir {run.tensorboard}"),
        ("watch it play", f"python eval.py watch {run}"),
        ("score it again, on other levels", f"python eval.py {run} --splits test2 test3"),
    ]
    if config.sequence.active:
        last = config.plan.stages[-1].number
        commands += [
            ("see what was forgotten", f"python eval.py watch {run}@stage1 --versus {run}@stage{last}"),
            ("curves, forgetting, transfer", f"python eval.py report {run} --out REPORT_DIR"),
        ]
    else:
        commands.append(("train on", f"{PROGRAM} --resume {run} --total-steps {2 * config.total_steps}"))
    console.print("\nNext:")
    for what, command in commands:
        console.print(f"  {command:70}  # {what}", soft_wrap=True)
