"""Start a run or continue it: environments, agent, logs, checkpoints, and what comes at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from agents import ALGORITHMS, Agent, read_checkpoint
from common.errors import UserError
from envs import grouped_procgen
from experiments import validation
from experiments.checkpoints import SaveCheckpoints
from experiments.command_line import PROGRAM, Launch, Resume, parse
from experiments.config import TrainConfig, to_json
from experiments.finish import evaluate_and_record
from experiments.progress import training_progress
from experiments.run_directory import RunDirectory, new_path
from experiments.stopping import StopOnRequest, StopRequest
from experiments.writers import make_logger


def main(words: Sequence[str] | None = None) -> int:
    """The command line of train.py; returns the exit code.

    Args:
        words: the arguments; None for those of the process.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
    """
    words = sys.argv[1:] if words is None else list(words)
    command = parse(words)
    match command:
        case None:
            return 0
        case Launch(preset, config, run_dir):
            path = new_path(preset, config) if run_dir is None else Path(run_dir)
            return train(config, path, command=[*PROGRAM.split(), *words])
        case Resume(run_dir, total_steps):
            return resume(run_dir, total_steps, command=[*PROGRAM.split(), *words])


def train(config: TrainConfig, run_dir: str | Path, *, command: Sequence[str] = ()) -> int:
    """Train from scratch and evaluate.

    Args:
        config: all settings.
        run_dir: must not exist.
        command: what to write down as the command that started the run.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        UserError: the settings contradict one another, or the directory exists.
        OSError: the directory cannot be written.
    """
    validation.check(config)
    if config.env_groups is None:
        # Stored as it is now, so that the run can be continued on another device.
        config = replace(config, env_groups=2 if get_device(config.device).type == "cuda" else 1)
    run = RunDirectory(run_dir)
    run.create(config, command)
    return _run(config, run, None)


def resume(run_dir: str | Path, total_steps: int | None = None, *, command: Sequence[str] = ()) -> int:
    """Continue a run from its newest checkpoint with its stored settings, then evaluate.

    With the same `total_steps`, on a CPU and with `rollout_lag` 0, the result is that of a run that was never
    interrupted. A learning rate that decays is spread over the new `total_steps`.

    Args:
        run_dir: of a run that was stopped or has ended.
        total_steps: environment steps at which it shall now end; None for the stored number.
        command: what to write down as the command.

    Returns:
        As for `train`.

    Raises:
        UserError: it is not a run, has no usable checkpoint, or has ended already.
    """
    run = RunDirectory(run_dir)
    config = run.read_config()
    if total_steps is not None:
        config = replace(config, total_steps=total_steps)
    validation.check(config)
    path = run.newest_checkpoint()
    content = read_checkpoint(path)
    _check_same_run(content, config, path)
    step = content["run"]["num_timesteps"]
    if step >= config.total_steps and run.evaluation_file.exists():
        raise UserError(
            f"{run} has ended at {step} of {config.total_steps} steps: extend it with a larger --total-steps"
        )
    run.write_config(config)
    run.add_command(command)
    return _run(config, run, (path, content))


def _check_same_run(content: Mapping[str, Any], config: TrainConfig, path: Path) -> None:
    """Refuse a checkpoint that was made with other settings than those stored in the run directory."""
    made_with, stored = content.get("experiment"), to_json(config)
    if not made_with:
        raise UserError(f"{path} was not made by train.py: load it with agents.load")
    different = [
        key for key in stored if key != "total_steps" and made_with.get(key, stored[key]) != stored[key]
    ]
    if different:
        raise UserError(
            f"{path} belongs to another run than its directory: config.json differs in {', '.join(different)}"
        )


def _run(config: TrainConfig, run: RunDirectory, checkpoint: tuple[Path, Mapping[str, Any]] | None) -> int:
    console = Console(markup=False, highlight=False)
    _introduce(config, run, checkpoint, console)
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    env = grouped_procgen(
        config.games,
        config.slots,
        groups=config.env_groups or 1,
        mode=config.mode,
        levels=config.levels,
        seed=config.seed,
        num_threads=config.env_threads,
    )
    try:
        agent = _make_agent(config, env, checkpoint)
        request = StopRequest()
        with request.listening():
            saved = _learn(agent, config, run, request, resumed=checkpoint is not None, console=console)
    finally:
        env.close()
    if request.signal is not None:
        reached = f"{agent.num_timesteps:,} of {config.total_steps:,} steps"
        console.print(f"Stopped at {reached}; saved {saved}", soft_wrap=True)
        console.print(f"Continue with: {PROGRAM} --resume {run}", soft_wrap=True)
        return request.exit_code
    evaluate_and_record(agent, config, run, saved, console)
    _conclude(config, run, saved, console)
    return 0


def _make_agent(
    config: TrainConfig, env: VecEnv, checkpoint: tuple[Path, Mapping[str, Any]] | None
) -> Agent:
    algorithm = ALGORITHMS[config.algorithm]
    if checkpoint is None:
        agent = algorithm(config.policy_config, env, config.agent, seed=config.seed, device=config.device)
    else:
        path, content = checkpoint
        agent = algorithm.from_content(content, str(path), env, config.device, force_reset=False)
    agent.experiment = to_json(config)
    return agent


def _learn(
    agent: Agent,
    config: TrainConfig,
    run: RunDirectory,
    request: StopRequest,
    resumed: bool,
    console: Console,
) -> Path:
    """Train to the end, or until a request; returns the last checkpoint."""
    start = agent.num_timesteps
    if start >= config.total_steps:
        return run.newest_checkpoint()
    logger = make_logger(run.progress_file, run.tensorboard, start if resumed else None)
    agent.set_logger(logger)
    checkpoints = SaveCheckpoints(run, config.checkpoint_every_steps)
    progress = training_progress(config.total_steps, console)
    try:
        agent.learn(
            config.total_steps - start,
            CallbackList([progress, checkpoints, StopOnRequest(request)]),
            log_interval=max(1, round(config.log_every_steps / config.rollout_steps)),
            reset_num_timesteps=not resumed,
        )
    finally:
        progress.close()
        logger.close()
    assert checkpoints.saved is not None
    return checkpoints.saved


def _introduce(
    config: TrainConfig,
    run: RunDirectory,
    checkpoint: tuple[Path, Mapping[str, Any]] | None,
    console: Console,
) -> None:
    verb = "Training" if checkpoint is None else f"Continuing {checkpoint[0].name}:"
    console.print(
        f"{verb} {config.policy} with {config.algorithm} on {', '.join(config.games)} ({config.mode}, levels "
        f"{config.levels}), {config.slots} slots, {config.total_steps:,} steps",
        soft_wrap=True,
    )
    console.print(f"Everything goes to {run}", soft_wrap=True)


def _conclude(config: TrainConfig, run: RunDirectory, saved: Path, console: Console) -> None:
    """Say where everything is and what to do next."""
    places = [
        ("checkpoint", saved),
        ("scores", run.evaluation_file),
        ("videos", run.videos),
        ("curves", run.progress_file),
        ("TensorBoard", run.tensorboard),
        ("settings", run.config_file),
    ]
    console.print()
    for what, path in places:
        if path.exists():
            console.print(f"  {what:12}{path}", soft_wrap=True)
    commands = [
        ("watch the curves", f"tensorboard --logdir {run.tensorboard}"),
        ("score it again, on other levels", f"python eval.py {run} --splits test2 test3"),
        ("train on", f"{PROGRAM} --resume {run} --total-steps {2 * config.total_steps}"),
    ]
    console.print("\nNext:")
    for what, command in commands:
        console.print(f"  {command:70}  # {what}", soft_wrap=True)
