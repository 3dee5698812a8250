"""Stable-Baselines3's own PPO, unmodified, on our environment with our network: a baseline for our PPO.

    python -m benchmarks.sb3_ppo openai-ppo-easy --games starpilot --agent.value-clip-range none
    python -m benchmarks.sb3_ppo --resume runs/sb3_ppo/...

It takes the options of train.py (``python train.py PRESET --help``) for feed-forward PPO on one game, and makes a run
directory like any other, which evaluation, reports and the viewer take for a run of ours. Reports tell it apart by its
label, which goes into suite.json of the parent directory. The environment, and the encoder as a features extractor, are
ours; collecting, advantages, minibatches, losses, optimizer and the scale of rewards are Stable-Baselines3's.

A run that is continued starts new episodes, so it is not bit for bit the run that was never stopped. What it continues
from is unpickled by Stable-Baselines3: continue only runs that you trust.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import HumanOutputFormat
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents import PPO, PPOConfig
from agents.episodes import EpisodeLog
from common.cli import run_command
from common.errors import UserError, raise_problems
from common.files import write_json
from envs import IMAGE_SHAPE, NUM_ACTIONS, ProcgenVecEnv
from envs.checks import MAX_SEED
from experiments.command_line import Launch, Resume, parse
from experiments.scores_and_videos import evaluate_and_record
from experiments.stopping import StopOnRequest, StopRequest
from policies import Policy, PolicyConfig
from records.config import TrainConfig, to_json
from records.directory import RECORD, RUNS, RunDirectory, checkpoint_step, group_of, new_path, read_record
from records.writers import make_logger

PROGRAM = "python -m benchmarks.sb3_ppo"
LABEL = "PPO of Stable-Baselines3"


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
        case Resume(run_dir, total_steps, None, None, "1"):
            return resume(run_dir, total_steps, command)
        case Resume():
            raise UserError("the baseline goes on with its own settings: give --total-steps alone")
    return 0


def problems(config: TrainConfig, run_dir: Path) -> list[str]:
    """Everything that is wrong with a run, a line each."""
    found = config.problems()
    wanted = config.algorithm_name == "ppo" and config.policy_name == "feedforward" and len(config.games) == 1
    if not wanted or config.agent.reward_transform == "clip":
        found.append(
            "the baseline is feed-forward PPO on one game with rewards that are not clipped: "
            "give --policy feedforward --algorithm ppo --games GAME --agent.reward-transform normalize or none"
        )
    if not group_of(run_dir.name):
        found.append(f"reports find no group in the name {run_dir}: name it {run_dir}-seed{config.seed}")
    return found


def train(config: TrainConfig, run_dir: Path, command: Sequence[str] = ()) -> int:
    """Train from scratch and evaluate; returns the exit code.

    Raises:
        UserError: The settings are wrong or not for the baseline, or the directory exists.
    """
    raise_problems(problems(config, run_dir))
    run = RunDirectory(run_dir)
    run.create(config, command)
    record = read_record(run_dir.parent) or {"suite": run_dir.parent.name}
    groups = {item["group"]: item for item in record.get("groups", [])}
    groups[group_of(run_dir.name)] = {"group": group_of(run_dir.name), "label": LABEL}
    write_json(run_dir.parent / RECORD, {**record, "groups": list(groups.values())})
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
        newest = next(reversed(run.checkpoint_files()), None)
        if newest is not None and not _model_file(newest).exists():
            raise UserError(f"{newest} is not of {PROGRAM}: continue it with python train.py --resume {run}")
        if (
            newest is not None
            and checkpoint_step(newest) >= config.total_steps
            and run.evaluation_file.exists()
        ):
            raise UserError(f"{run} has ended: extend it with a larger --total-steps")
        run.remove_leftovers()
        run.write_config(config)
        run.add_command(command)
        return _run(config, run, newest)


def _run(config: TrainConfig, run: RunDirectory, checkpoint: Path | None) -> int:
    start = 0 if checkpoint is None else checkpoint_step(checkpoint)
    seed = (config.seed + start) % MAX_SEED
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    env = ProcgenVecEnv(
        config.games, config.num_envs, config.mode, config.levels, seed, num_threads=config.env_threads
    )
    logger = make_logger(run.progress_file, run.tensorboard, None if checkpoint is None else start)
    logger.output_formats.append(HumanOutputFormat(sys.stdout))
    request = StopRequest()
    try:
        agent = PPO(config.policy, env, config.agent, seed=config.seed, device=config.device)
        agent.experiment = to_json(config)
        model = (
            make_model(config, env, seed)
            if checkpoint is None
            else load_model(checkpoint, env, config.device)
        )
        model.set_logger(logger)
        if start < config.total_steps:
            with request.listening():
                model.learn(
                    config.total_steps - start,
                    CallbackList([Record(config, run, agent), StopOnRequest(request)]),
                    log_interval=max(1, round(config.log_every_steps / config.steps_per_rollout)),
                    reset_num_timesteps=checkpoint is None,
                )
        copy_weights(model, agent)
    finally:
        logger.close()
        env.close()
    if request.asked:
        print(f"Stopped at {model.num_timesteps:,} steps; continue with: {PROGRAM} --resume {run}")
        return request.exit_code
    evaluate_and_record(agent, config, run, run.newest_checkpoint(), Console(markup=False, highlight=False))
    return 0


class Features(BaseFeaturesExtractor):
    """Our encoder and the previous reward; Stable-Baselines3 gives it images channel-first."""

    def __init__(self, observation_space: spaces.Dict, policy_config: PolicyConfig) -> None:
        encoder = Policy(policy_config, IMAGE_SHAPE, NUM_ACTIONS).encoder
        super().__init__(observation_space, encoder.output_size + 1)
        self.encoder = encoder

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        images = observations["rgb"].to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return torch.cat([self.encoder(images), observations["reward"].clamp(-1.0, 1.0)], dim=-1)


def make_model(config: TrainConfig, env: ProcgenVecEnv, seed: int) -> stable_baselines3.PPO:
    """Stable-Baselines3's PPO with the settings of one of ours, which plays `env`."""
    agent = config.agent
    assert isinstance(agent, PPOConfig)
    rate, normalize = agent.learning_rate, agent.reward_transform == "normalize"
    return stable_baselines3.PPO(
        "MultiInputPolicy",
        VecNormalize(env, norm_obs=False, norm_reward=normalize, gamma=agent.discount, epsilon=1e-8),
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
            "features_extractor_kwargs": {"policy_config": config.policy},
            "net_arch": [],
            "ortho_init": False,
            "normalize_images": False,
            "optimizer_kwargs": {"eps": agent.adam_eps},
        },
    )


def load_model(checkpoint: Path, env: ProcgenVecEnv, device: str) -> stable_baselines3.PPO:
    """What `Record` saved beside `checkpoint`, to play `env`.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        rewards = VecNormalize.load(str(_rewards_file(checkpoint)), env)
        return stable_baselines3.PPO.load(_model_file(checkpoint), rewards, device)
    except Exception as error:  # whatever a damaged archive or pickle leads to
        raise UserError(
            f"{_model_file(checkpoint)} or the scale of rewards beside it is damaged: {error}"
        ) from error


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
    """Keeps curves and checkpoints as our runs do.

    Stable-Baselines3's `CheckpointCallback` saves before a rollout is learned from, and a run that continues would lose
    that update; this one saves after it.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, agent: PPO) -> None:
        """`agent` is what checkpoints of this project are made from."""
        super().__init__()
        self._run, self._agent, self._every = run, agent, config.checkpoint_every_steps
        self._episodes = EpisodeLog(config.games)

    def _on_training_start(self) -> None:
        self._saved_at = self._logged_at = self.model.num_timesteps
        self._began = time.perf_counter()

    def _on_rollout_start(self) -> None:
        if self._every is not None and self.model.num_timesteps - self._saved_at >= self._every:
            self._save()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._episodes.add(info["game"], info)
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
        path, model, rewards = (
            self._run.checkpoint_at(self._saved_at),
            self.model,
            self.model.get_vec_normalize_env(),
        )
        assert isinstance(model, stable_baselines3.PPO)
        assert rewards is not None
        model.save(_model_file(path))
        rewards.save(str(_rewards_file(path)))
        copy_weights(model, self._agent)
        self._agent.save(path)  # last: its name is what a run is continued from


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
