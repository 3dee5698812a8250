"""Start a run or continue it: environments, agent, logs, checkpoints, and what comes at the end."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from agents import ALGORITHMS, Agent
from agents.content import processes_of
from agents.device import peak_memory
from agents.distributed import joined
from agents.exchange import Exchange
from agents.numerics import NotFinite
from agents.place import Place
from common.errors import RunError, UserError, raise_problems
from evaluation.trained.history import history_of
from experiments.checkpoints import CheckpointFailure, SaveCheckpoints, reason
from experiments.command_line import PROGRAM, Launch, Resume, parse
from experiments.continual_evaluation import ContinualEvaluation
from experiments.curriculum import Curriculum, current_stage, make_environments
from experiments.processes import check_processes
from experiments.progress import TrainingProgress
from experiments.requeue import start_or_continue
from experiments.scores_and_videos import TrainingVideos, evaluate_and_record
from experiments.several import AUTO, number_of_processes, start_several
from experiments.start import begin_with, read_start
from experiments.stopping import (
    Heartbeat,
    StopOnRequest,
    Stopped,
    StopRequest,
    Watchdog,
    patient_output,
)
from policies.precision import has_bfloat16_units
from records.config import TrainConfig, from_json, learned_settings, to_json
from records.continual import FILE
from records.directory import RUNS, RunDirectory, UsableCheckpoint, existing_problems, new_path
from records.launches import begun_by, launch_id
from records.lock import RunLock
from records.replay import replay_problems
from records.sequence import Stage
from records.state import is_finished, run_directories
from records.writers import make_logger, sync

MAY_CHANGE = ("total_steps", "agent.learning_rate", "agent.on_nan")
"""Settings besides the incidental ones that a run may be continued with another value of."""
LAUNCHERS_SECONDS = 10.0
"""In which a launcher has passed on the signals that it got."""

logger = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> int:
    """The command line of train.py, or the one that `words` give; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
    """
    words = sys.argv[1:] if words is None else list(words)
    with joined() as exchange:
        command = exchange.together(lambda: parse(words))
        called = [*PROGRAM.split(), *words]
        if command is None:
            return 0
        if exchange.size == 1 and (processes := _processes(command)) > 1:
            return start_several(sys.argv[0], words, processes)
        _check_number(command, exchange)
        match command:
            case Launch(name, config, run_dir, requeue, _):
                if requeue:
                    return _start_or_continue(config, str(run_dir), called, exchange)
                earlier = exchange.on_first(lambda: _begun_before(called, run_dir))
                if earlier is not None:
                    return resume(earlier, command=called, exchange=exchange, again=True)
                path = run_dir or exchange.on_first(lambda: str(new_path(name, config)))
                return train(config, path, command=called, exchange=exchange)
            case Resume(run_dir, total_steps, learning_rate, on_nan, _):
                return resume(run_dir, total_steps, learning_rate, on_nan, command=called, exchange=exchange)


def _processes(command: Launch | Resume) -> int:
    """How many processes a command asks for that was started in one."""
    if command.processes == "1":
        return 1
    config = command.config if isinstance(command, Launch) else RunDirectory(command.resume).read_config()
    config.check()
    return number_of_processes(command.processes, config)


def _check_number(command: Launch | Resume, exchange: Exchange) -> None:
    if exchange.size > 1 and command.processes not in ("1", AUTO, str(exchange.size)):
        raise UserError(
            f"--processes {command.processes} in {exchange.size} processes: leave one of them out"
        )


def _start_or_continue(config: TrainConfig, run_dir: str, command: Sequence[str], exchange: Exchange) -> int:
    """With --requeue: begin the run, or go on with it."""
    if exchange.size > 1:
        raise UserError(
            "--requeue is for one process: torchrun starts several again, and they find their run"
        )
    return start_or_continue(
        config,
        Path(run_dir),
        start=lambda: train(config, run_dir, command=command, exchange=exchange),
        go_on=lambda: resume(run_dir, command=command, exchange=exchange),
    )


def _begun_before(command: Sequence[str], run_dir: str | None) -> str | None:
    """The run that this launch has begun before it was started again, after a process died or a job was requeued."""
    places = [Path(run_dir)] if run_dir is not None else run_directories(RUNS)
    found = begun_by(command, places)
    if found is None and run_dir is not None:
        raise_problems(existing_problems(run_dir))
    return None if found is None else str(found)


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    command: Sequence[str] = (),
    exchange: Exchange | None = None,
) -> int:
    """Train from fresh weights, or those of `config.start`, and evaluate.

    Args:
        run_dir: must not exist.
        command: what to write down as the command that started the run.
        exchange: with the processes that share the run (`agents.distributed.joined`), all of which call this; None to
            train alone.

    Returns:
        0, or 128 + the number of the signal that stopped the run.

    Raises:
        UserError: the settings contradict one another, or the directory exists.
        OSError: the directory cannot be written.
        RunError: numbers are not finite, the last checkpoint cannot be written, or another process has left; what could
            be saved is saved.
    """
    exchange = Exchange() if exchange is None else exchange

    def settled() -> TrainConfig:
        config.check()
        raise_problems(replay_problems(config, Path(run_dir)))
        if config.env_groups is not None:
            return config
        # Stored as it is now, so that the run can be continued on another device.
        return replace(config, env_groups=2 if get_device(config.device).type == "cuda" else 1)

    config = exchange.together(settled)
    check_processes(config, exchange)
    exchange.together(lambda: read_start(config))  # while nothing has been created yet
    run, lock = RunDirectory(run_dir), RunDirectory(run_dir).lock
    with ExitStack() as stack:

        def begin() -> None:
            origin = None if config.start is None else history_of(config.start).plain()
            run.create(config, command, origin)
            stack.enter_context(lock)

        exchange.on_first(begin)
        return _run(config, run, lock, None, exchange)


def resume(
    run_dir: str | Path,
    total_steps: int | None = None,
    learning_rate: float | None = None,
    on_nan: str | None = None,
    *,
    command: Sequence[str] = (),
    exchange: Exchange | None = None,
    again: bool = False,
) -> int:
    """Continue a run from its newest whole checkpoint with its stored settings, then evaluate; returns as `train`.

    With the same `total_steps`, learning rate and number of processes and on a CPU, the result is that of a run that
    was never interrupted. A learning rate that decays is spread over the new `total_steps`. A run that was killed
    before its first checkpoint begins anew.

    Args:
        total_steps: environment steps at which it shall now end; None for the stored number.
        learning_rate: from now on, at the start of training if it decays; None for the stored one.
        on_nan: what to do from now on when numbers are not finite; None for what is stored.
        exchange: as for `train`.
        again: whether there is nothing wrong with a run that has ended.

    Raises:
        UserError: it is not a run, none of its checkpoints is whole, another process is training it, or it has ended.
        RunError: as for `train`.
    """
    exchange = Exchange() if exchange is None else exchange
    run, lock = RunDirectory(run_dir), RunDirectory(run_dir).lock
    with ExitStack() as stack:

        def take_up() -> dict[str, Any]:
            run.read_config()  # before anything is written there
            stack.enter_context(lock)
            config = _changed(run.read_config(), total_steps, learning_rate, on_nan)
            config.check()
            checkpoint = run.usable_checkpoint()
            finished = checkpoint is not None and is_finished(run, config, checkpoint.step)
            if checkpoint is not None:
                _check_same_run(checkpoint, config)
                if total_steps is not None and total_steps < checkpoint.step:
                    raise UserError(
                        f"{run} has made {checkpoint.step:,} steps: it cannot end at {total_steps:,}; "
                        "give a larger --total-steps"
                    )
            if checkpoint is not None and finished and not again:
                raise UserError(
                    f"{run} has ended at {checkpoint.step} of {config.total_steps} steps: "
                    "extend it with a larger --total-steps"
                )
            run.remove_leftovers()
            run.write_config(config)
            run.add_command(command)
            found = None if checkpoint is None else {**vars(checkpoint), "path": str(checkpoint.path)}
            return {"config": to_json(config), "checkpoint": found, "finished": finished}

        stored = exchange.on_first(take_up)
        if stored["finished"]:
            return 0
        config, found = from_json(stored["config"]), stored["checkpoint"]
        check_processes(config, exchange)
        checkpoint = None if found is None else UsableCheckpoint(Path(found["path"]), found["content"])
        return _run(config, run, lock, checkpoint, exchange)


def _changed(
    config: TrainConfig, total_steps: int | None, learning_rate: float | None, on_nan: str | None
) -> TrainConfig:
    if total_steps is not None:
        config = replace(config, total_steps=total_steps)
    if learning_rate is not None:
        config = replace(config, agent=replace(config.agent, learning_rate=learning_rate))
    if on_nan is not None:
        config = replace(config, agent=replace(config.agent, on_nan=on_nan))
    return config


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


def _run(
    config: TrainConfig,
    run: RunDirectory,
    lock: RunLock,
    checkpoint: UsableCheckpoint | None,
    exchange: Exchange,
) -> int:
    with patient_output():
        return _run_patiently(config, run, lock, checkpoint, exchange)


def _run_patiently(
    config: TrainConfig,
    run: RunDirectory,
    lock: RunLock,
    checkpoint: UsableCheckpoint | None,
    exchange: Exchange,
) -> int:
    console = Console(markup=False, highlight=False)
    request = StopRequest(0.0 if launch_id() is None else LAUNCHERS_SECONDS)
    with request.listening():
        verb = "Training" if checkpoint is None else f"Continuing {checkpoint.path.name}:"
        shared = "" if exchange.size == 1 else f" in {exchange.size} processes"
        console.print(
            f"{verb} {config.policy_name} with {config.algorithm_name} on {_what_is_played(config)}, "
            f"{config.num_envs} environments{shared}, {config.total_steps:,} steps\n"
            f"Everything goes to {run}",
            soft_wrap=True,
        )
        device = exchange.together(lambda: exchange.place.device(config.device))
        exchange = exchange.for_run(device, config.watchdog_minutes)
        state = None if checkpoint is None else checkpoint.content["run"]
        stage = current_stage(config, state) if config.sequence.active else None
        env = make_environments(config, stage, _set_threads(config, exchange.place), exchange.part)
        try:
            agent = _make_agent(config, env, checkpoint, device, exchange)
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
                request.agree(exchange)
                saved = checkpoints.saved
                assert saved is not None
                if not request.asked:
                    with contextlib.suppress(Stopped):
                        evaluate_and_record(agent, config, run, saved, console, beat, exchange)
        finally:
            env.close()
    if request.asked:
        reached = f"{agent.num_timesteps:,} of {config.total_steps:,} steps"
        console.print(f"Stopped at {reached}; saved {saved}", soft_wrap=True)
        console.print(f"Continue with: {PROGRAM} --resume {run}{_shared_as(exchange)}", soft_wrap=True)
        return request.exit_code
    _conclude(config, run, saved, console, _shared_as(exchange))
    return 0


def _what_is_played(config: TrainConfig) -> str:
    if not config.sequence.active:
        return f"{', '.join(config.games)} ({config.mode}, levels {config.levels})"
    if config.sequence.joint:
        return f"{', '.join(map(str, config.tasks))}, all at once"
    stages = len(config.plan.stages)
    return f"{', '.join(map(str, config.tasks))}, one after another in {stages} stages ({config.retention})"


def _set_threads(config: TrainConfig, place: Place) -> int:
    """Give torch its threads, and return how many the environments get: together no more than this process's cores."""
    if place.size == 1:
        if config.torch_threads is not None:
            torch.set_num_threads(config.torch_threads)
        return config.env_threads
    torch.set_num_threads(config.torch_threads or place.cores)
    return min(config.env_threads, place.cores)


def _make_agent(
    config: TrainConfig,
    env: VecEnv,
    checkpoint: UsableCheckpoint | None,
    device: str,
    exchange: Exchange,
) -> Agent:
    algorithm = ALGORITHMS[config.algorithm_name]
    if checkpoint is None:
        agent = algorithm(
            config.policy,
            env,
            config.agent,
            retention=config.retention,
            retain=config.retain,
            seed=config.seed,
            device=device,
            exchange=exchange,
        )
        if (weights := read_start(config)) is not None:
            begin_with(agent, weights)
    else:
        before = processes_of(checkpoint.content["run"])
        if before != exchange.size:
            logger.warning(
                "%s was saved by %d process%s, this run has %d: it continues with fresh episodes",
                *(checkpoint.path.name, before, "es" * (before > 1), exchange.size),
            )
        agent = algorithm.from_content(
            checkpoint.content,
            str(checkpoint.path),
            env,
            device,
            force_reset=before != exchange.size,
            exchange=exchange,
            learning_rate=config.agent.learning_rate,
            on_nan=config.agent.on_nan,
        )
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
    log = Logger(folder=None, output_formats=[])
    if agent.exchange.is_first:
        log = make_logger(run.progress_file, run.tensorboard, None if is_new else start)
    agent.set_logger(log)
    progress = TrainingProgress(config.total_steps, console)
    videos = [TrainingVideos(config, run)] if agent.exchange.is_first else []
    callbacks: list[BaseCallback] = [progress, checkpoints, *videos, StopOnRequest(request)]
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
        outcome = checkpoints.save_in_need(agreed=isinstance(error, NotFinite))
        raise RunError(f"{error}; {outcome}; continue with --resume{hint}") from error
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
    """Say what runs where: the device, what the encoder computes in, and the versions of the core's operators."""
    acting, learning = (agent.policy.implementations(steps) for steps in (1, agent.config.horizon))
    versions = [f"; {name}: {acting[name]} for acting, {learning[name]} for learning" for name in acting]
    precision = agent.policy_config.precision
    console.print(f"On {agent.device}; encoder in {precision}{''.join(versions)}", soft_wrap=True)
    if precision == "bfloat16" and not has_bfloat16_units(agent.device):
        console.print(
            "This device only emulates bfloat16, which is slow: --precision auto would take float32"
        )


def _shared_as(exchange: Exchange) -> str:
    """The option that shares a run among as many processes again."""
    return "" if exchange.size == 1 else f" --processes {exchange.size}"


def _conclude(config: TrainConfig, run: RunDirectory, saved: Path, console: Console, shared: str) -> None:
    """Say where everything is and what to do next; `shared` is the option for as many processes."""
    places = [
        ("checkpoint", saved),
        ("scores", run.evaluation_file),
        ("all tasks", run.path / FILE),
        ("videos", run.videos),
        ("curves", run.progress_plot),
        ("their numbers", run.progress_file),
        ("TensorBoard", run.tensorboard),
        ("settings", run.config_file),
    ]
    console.print(f"Peak memory: {peak_memory()['peak_gb']:.1f} GB")
    console.print()
    for what, path in places:
        if path.exists():
            console.print(f"  {what:15}{path}", soft_wrap=True)
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
        commands.append(
            ("train on", f"{PROGRAM} --resume {run} --total-steps {2 * config.total_steps}{shared}")
        )
    console.print("\nNext:")
    for what, command in commands:
        console.print(f"  {command:70}  # {what}", soft_wrap=True)
