"""Stable-Baselines3's own PPO, unmodified, on our environment with our network: a baseline for our PPO.

    python -m benchmarks.sb3_ppo openai-ppo-easy --games starpilot --agent.value-clip-range none
    python -m benchmarks.sb3_ppo --resume runs/sb3_ppo/...

It takes the options of train.py (``python train.py PRESET --help``) for feed-forward PPO on one game, and makes a run
directory like any other: evaluation, reports and the viewer treat it as a run of ours. Collecting, advantages,
minibatches, losses, the optimizer and the normalisation of rewards are Stable-Baselines3's; the environment, and the
encoder as a features extractor, are ours. A report holds it against other runs in the same parent directory, where it
enters its label in suite.json.

A run that is continued starts new episodes, so it is not bit for bit the run that was never stopped. What it is
continued from is unpickled by Stable-Baselines3: continue only runs that you trust.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents import PPO, PPOConfig
from agents.episodes import EpisodeLog
from common.cli import run_command
from common.errors import UserError, raise_problems
from envs import IMAGE_SHAPE, NUM_ACTIONS, ProcgenVecEnv
from envs.checks import MAX_SEED
from experiments.command_line import Launch, Resume, parse
from experiments.finish import evaluate_and_record
from experiments.stopping import StopOnRequest, StopRequest
from policies import Policy
from records import validation
from records.config import TrainConfig, to_json
from records.directory import RUNS, RunDirectory, checkpoint_step, new_path, write_json
from records.suite_record import RECORD, group_of, read_record
from records.writers import make_logger

PROGRAM = "python -m benchmarks.sb3_ppo"
LABEL = "PPO of Stable-Baselines3"
LINE_SECONDS = 10.0


def main(words: Sequence[str]) -> int:
    """The command line; returns the exit code.

    Raises:
        UserError: Something that was asked for cannot be had; nothing was created then.
    """
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command = [*PROGRAM.split(), *words]
    match parse(words):
        case Launch(preset, config, run_dir):
            path = new_path(preset, config, RUNS / "sb3_ppo") if run_dir is None else Path(run_dir)
            return train(config, path, command)
        case Resume(path, total_steps):
            return resume(path, total_steps, command)
    return 0


def problems(config: TrainConfig, run_dir: Path) -> list[str]:
    """Everything that is wrong with a run, a line each."""
    found = validation.problems(config)
    if config.algorithm != "ppo" or config.policy != "feedforward":
        found.append(
            f"the baseline is feed-forward PPO, not {config.policy} with {config.algorithm}: "
            "give --policy feedforward --algorithm ppo"
        )
    if len(config.games) != 1:
        found.append(f"the baseline plays one game, not {len(config.games)}: its rewards share one scale")
    if config.agent.reward_transform == "clip":
        found.append("the baseline does not clip rewards: give --agent.reward-transform normalize or none")
    if not group_of(run_dir.name):
        found.append(
            f"{run_dir} does not end in -seedN, by which reports tell runs: name it {run_dir}-seed{config.seed}"
        )
    return found


def train(config: TrainConfig, run_dir: Path, command: Sequence[str] = ()) -> int:
    """Train from scratch and evaluate; returns the exit code.

    Raises:
        UserError: The settings are wrong or not for the baseline, or the directory exists.
    """
    raise_problems(problems(config, run_dir))
    run = RunDirectory(run_dir)
    run.create(config, command)
    _enter_label(run.path)
    with run.lock:
        return _run(config, run, None)


def resume(run_dir: str | Path, total_steps: int | None = None, command: Sequence[str] = ()) -> int:
    """Continue with new episodes; returns the exit code.

    Raises:
        UserError: It is not a run of the baseline, or it has ended.
    """
    run = RunDirectory(run_dir)
    config = run.read_config()
    config = replace(config, total_steps=total_steps or config.total_steps)
    raise_problems(problems(config, run.path))
    with run.lock:
        files = run.checkpoint_files()
        if files and not _model_file(files[-1]).exists():
            raise UserError(
                f"{run} is not a run of {PROGRAM}: continue it with python train.py --resume {run}"
            )
        if files and checkpoint_step(files[-1]) >= config.total_steps and run.evaluation_file.exists():
            raise UserError(
                f"{run} has ended at {checkpoint_step(files[-1])} steps: extend it with a larger --total-steps"
            )
        run.remove_leftovers()
        run.write_config(config)
        run.add_command(command)
        return _run(config, run, files[-1] if files else None)


def _enter_label(path: Path) -> None:
    """Tell reports what the group of the run at `path` is called."""
    record = read_record(path.parent) or {"suite": path.parent.name}
    groups = {item["group"]: item for item in record.get("groups", [])}
    groups[group_of(path.name)] = {"group": group_of(path.name), "label": LABEL}
    write_json(path.parent / RECORD, {**record, "groups": list(groups.values())})


def _run(config: TrainConfig, run: RunDirectory, checkpoint: Path | None) -> int:
    console = Console(markup=False, highlight=False, soft_wrap=True)
    start = 0 if checkpoint is None else checkpoint_step(checkpoint)
    resumed = "" if checkpoint is None else f", from {start:,} on"
    console.print(f"Stable-Baselines3's PPO on {config.games[0]}, {config.total_steps:,} steps{resumed}")
    console.print(f"Everything goes to {run}")
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    env = ProcgenVecEnv(
        config.games,
        config.slots,
        mode=config.mode,
        levels=config.levels,
        seed=(config.seed + start) % MAX_SEED,
        num_threads=config.env_threads,
    )
    request = StopRequest()
    logger = make_logger(run.progress_file, run.tensorboard, None if checkpoint is None else start)
    try:
        agent = PPO(config.policy_config, env, config.agent, seed=config.seed, device=config.device)
        agent.experiment = to_json(config)
        model = make_model(config, env, (config.seed + start) % MAX_SEED, checkpoint)
        model.set_logger(logger)
        if start < config.total_steps:
            with request.listening():
                model.learn(
                    config.total_steps - start,
                    CallbackList([Record(config, run, agent, console), StopOnRequest(request)]),
                    log_interval=max(1, round(config.log_every_steps / config.rollout_steps)),
                    reset_num_timesteps=checkpoint is None,
                )
        copy_weights(model, agent)
    finally:
        logger.close()
        env.close()
    if request.asked:
        console.print(f"Stopped at {model.num_timesteps:,} steps; continue with: {PROGRAM} --resume {run}")
        return request.exit_code
    evaluate_and_record(agent, config, run, run.newest_checkpoint(), console)
    return 0


class Features(BaseFeaturesExtractor):
    """Our encoder and the previous reward; Stable-Baselines3 gives it images channel-first."""

    def __init__(self, observation_space: spaces.Dict, make_policy: Callable[[], Policy]) -> None:
        policy = make_policy()
        super().__init__(observation_space, policy.encoder.output_size + 1)
        self.encoder = policy.encoder

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        images = observations["rgb"].to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return torch.cat([self.encoder(images), observations["reward"].clamp(-1.0, 1.0)], dim=-1)


def make_model(
    config: TrainConfig, env: ProcgenVecEnv, seed: int, checkpoint: Path | None = None
) -> stable_baselines3.PPO:
    """Stable-Baselines3's PPO with the settings of one of ours.

    Args:
        config: The settings of a feed-forward PPO run.
        env: Environments of its game.
        seed: The seed of weights, actions and minibatches.
        checkpoint: The checkpoint of ours to go on from, beside which Stable-Baselines3's files lie.

    Raises:
        UserError: These files are missing or damaged.
    """
    agent = config.agent
    assert isinstance(agent, PPOConfig)
    normalize = agent.reward_transform == "normalize"
    rewards = VecNormalize(
        env, norm_obs=False, norm_reward=normalize, clip_reward=10.0, gamma=agent.discount, epsilon=1e-8
    )
    rate = agent.learning_rate
    model = stable_baselines3.PPO(
        "MultiInputPolicy",
        rewards,
        learning_rate=(lambda left: left * rate) if agent.learning_rate_decay else rate,
        n_steps=agent.rollout_steps,
        batch_size=agent.rollout_steps * env.num_envs // agent.minibatches,
        n_epochs=agent.epochs,
        gamma=agent.discount,
        gae_lambda=agent.gae_lambda,
        clip_range=agent.clip_range,
        clip_range_vf=agent.value_clip_range,
        ent_coef=agent.entropy_cost,
        vf_coef=agent.value_cost / 2,  # of the whole squared error; ours is of half of it
        max_grad_norm=agent.max_grad_norm,
        seed=seed,
        device=config.device,
        policy_kwargs={
            "features_extractor_class": Features,
            "features_extractor_kwargs": {
                "make_policy": lambda: Policy(config.policy_config, IMAGE_SHAPE, NUM_ACTIONS)
            },
            "net_arch": [],
            "ortho_init": False,
            "normalize_images": False,
            "optimizer_kwargs": {"eps": agent.adam_eps},
        },
    )
    if checkpoint is not None:
        try:
            model.set_parameters(str(_model_file(checkpoint)), device=model.device)
            rewards.ret_rms = VecNormalize.load(str(_rewards_file(checkpoint)), env).ret_rms
        except Exception as error:  # whatever a damaged archive or pickle leads to
            raise UserError(
                f"{_model_file(checkpoint)} or what belongs to it cannot be read: {error}"
            ) from error
        model.num_timesteps = checkpoint_step(checkpoint)
    return model


def copy_weights(model: stable_baselines3.PPO, agent: PPO) -> None:
    """Give our `agent` the weights of `model`."""
    theirs: Any = model.policy
    agent.policy.encoder.load_state_dict(theirs.features_extractor.encoder.state_dict())
    agent.policy.actor.load_state_dict(theirs.action_net.state_dict())
    agent.policy.critic.load_state_dict(theirs.value_net.state_dict())
    agent.num_timesteps = model.num_timesteps


def _model_file(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".sb3.zip")


def _rewards_file(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".vecnormalize.pkl")


class Record(BaseCallback):
    """Keeps checkpoints and curves as our runs do, and prints how far the run is.

    Stable-Baselines3's `CheckpointCallback` saves before a rollout is learned from, so a run that continues would lose
    that update; this one saves after it.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, agent: PPO, console: Console) -> None:
        """`agent` is what checkpoints of this project are made of."""
        super().__init__()
        self._config, self._run, self._agent, self._console = config, run, agent, console
        self._episodes = EpisodeLog(config.games)
        self._saved_at = self._logged_at = 0
        self._began = self._shown = 0.0

    def _on_training_start(self) -> None:
        self._saved_at = self._logged_at = self.model.num_timesteps
        self._began = self._shown = time.perf_counter()

    def _on_rollout_start(self) -> None:
        every = self._config.checkpoint_every_steps
        if every is not None and self.model.num_timesteps - self._saved_at >= every:
            self._save()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._episodes.add(info["game"], info)
        if time.perf_counter() - self._shown >= LINE_SECONDS:
            self._shown = time.perf_counter()
            done, total = self.model.num_timesteps, self._config.total_steps
            self._console.print(f"{done / total:4.0%}  {done:,}/{total:,} steps")
        return True

    def _on_rollout_end(self) -> None:
        now, steps = time.perf_counter(), self.model.num_timesteps
        self.logger.record("time/sps", (steps - self._logged_at) / (now - self._began))
        self._began, self._logged_at = now, steps
        for tag, value in self._episodes.metrics().items():
            self.logger.record(tag, value)

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        self._saved_at = self.model.num_timesteps
        path = self._run.checkpoint_at(self._saved_at)
        if path.exists():
            return
        model, rewards = self.model, self.model.get_vec_normalize_env()
        assert isinstance(model, stable_baselines3.PPO)
        assert rewards is not None
        model.save(_model_file(path))
        rewards.save(str(_rewards_file(path)))
        copy_weights(model, self._agent)
        self._agent.save(path)  # last: its name is what a run is continued from


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
