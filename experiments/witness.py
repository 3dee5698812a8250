"""An outside witness: Stable-Baselines3's own PPO, unmodified, on our environment with our network.

    python train.py witness openai-ppo-easy --games starpilot --agent.value-clip-range none

It takes the settings of a feed-forward PPO run of this project and makes a run directory like any other, so that
curves and scores stand side by side. What is Stable-Baselines3's: collecting, advantages, minibatches, losses,
optimisation and the normalisation of rewards (``VecNormalize``). What is ours: the environment, and the encoder as a
features extractor. Checkpoints are this project's, with the weights that Stable-Baselines3 has trained. A run that is
continued starts new episodes, so that it is not bit for bit the run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from common.errors import UserError, raise_problems
from envs import ProcgenVecEnv
from envs.checks import MAX_SEED
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from experiments.command_line import Launch, Resume, parse
from experiments.finish import evaluate_and_record
from experiments.progress import LINE_SECONDS
from experiments.stopping import StopOnRequest, StopRequest
from policies import Policy
from records import validation
from records.config import TrainConfig, to_json
from records.directory import RunDirectory, checkpoint_step, new_path, write_json
from records.writers import make_logger

PROGRAM = "stable-baselines3"
MARK = "witness.json"
"""The file that tells a witness's run directory from those of our own agents."""


def main(words: Sequence[str]) -> int:
    """The command line of ``train.py witness``, which has the options of train.py; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had; nothing was created then.
    """
    command = parse(words)
    written = ["python", "train.py", "witness", *words]
    match command:
        case None:
            return 0
        case Launch(preset, config, run_dir):
            path = new_path(f"witness-{preset}", config) if run_dir is None else Path(run_dir)
            return train(config, path, command=written)
        case Resume(run_dir, total_steps):
            return resume(run_dir, total_steps, command=written)


def is_witness(run: RunDirectory) -> bool:
    """Whether Stable-Baselines3 made this run."""
    return (run.path / MARK).is_file()


def witness_problems(config: TrainConfig) -> list[str]:
    """What Stable-Baselines3's PPO cannot do, a line each."""
    found = []
    if config.algorithm != "ppo" or config.policy != "feedforward":
        found.append(
            f"the witness is feed-forward PPO, not {config.policy} with {config.algorithm}: "
            "give --policy feedforward --algorithm ppo"
        )
    if len(config.games) != 1:
        found.append(f"the witness plays one game, not {len(config.games)}: its rewards share one scale")
    if config.agent.reward_transform == "clip":
        found.append("the witness does not clip rewards: give --agent.reward-transform normalize or none")
    return found


def train(config: TrainConfig, run_dir: str | Path, *, command: Sequence[str] = ()) -> int:
    """As `experiments.launch.train`, with Stable-Baselines3's PPO.

    Raises:
        UserError: the settings contradict one another or are not for the witness, or the directory exists.
    """
    raise_problems([*validation.problems(config), *witness_problems(config)])
    run = RunDirectory(run_dir)
    run.create(config, command)
    with run.lock:
        write_json(run.path / MARK, {PROGRAM: stable_baselines3.__version__})
        return _run(config, run, None)


def resume(run_dir: str | Path, total_steps: int | None = None, *, command: Sequence[str] = ()) -> int:
    """As `experiments.launch.resume`; continues with new episodes.

    Raises:
        UserError: it is not a run of the witness, its checkpoint cannot be used, or it has ended already.
    """
    run = RunDirectory(run_dir)
    config = run.read_config()
    if not is_witness(run):
        raise UserError(f"{run} is not a run of the witness: continue it with python train.py --resume {run}")
    if total_steps is not None:
        config = replace(config, total_steps=total_steps)
    raise_problems([*validation.problems(config), *witness_problems(config)])
    with run.lock:
        files = run.checkpoint_files()
        reached = checkpoint_step(files[-1]) if files else 0
        if reached >= config.total_steps and run.evaluation_file.exists():
            raise UserError(
                f"{run} has ended at {reached} of {config.total_steps} steps: "
                "extend it with a larger --total-steps"
            )
        run.remove_leftovers()
        run.write_config(config)
        run.add_command(command)
        return _run(config, run, files[-1] if files else None)


def _run(config: TrainConfig, run: RunDirectory, checkpoint: Path | None) -> int:
    console = Console(markup=False, highlight=False)
    start = 0 if checkpoint is None else checkpoint_step(checkpoint)
    console.print(
        f"Stable-Baselines3's PPO on {config.games[0]}, {config.total_steps:,} steps"
        + (f", from {start:,} on" if start else ""),
        soft_wrap=True,
    )
    console.print(f"Everything goes to {run}", soft_wrap=True)
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
    try:
        witness = Witness(config, env, config.seed + start)
        if checkpoint is not None:
            witness.load(_own_state(checkpoint))
        request = StopRequest()
        if start < config.total_steps:
            with request.listening():
                _learn(witness, config, run, request, start if checkpoint is not None else None, console)
        agent = witness.agent()
    finally:
        env.close()
    reached = witness.model.num_timesteps
    if request.signal is not None:
        console.print(f"Stopped at {reached:,} of {config.total_steps:,} steps", soft_wrap=True)
        console.print(f"Continue with: python train.py witness --resume {run}", soft_wrap=True)
        return request.exit_code
    evaluate_and_record(agent, config, run, run.newest_checkpoint(), console)
    return 0


def _learn(
    witness: Witness,
    config: TrainConfig,
    run: RunDirectory,
    request: StopRequest,
    resumed_at: int | None,
    console: Console,
) -> None:
    logger = make_logger(run.progress_file, run.tensorboard, resumed_at)
    witness.model.set_logger(logger)
    keeper = _Keeper(witness, run, config.checkpoint_every_steps)
    try:
        witness.model.learn(
            config.total_steps - (resumed_at or 0),
            CallbackList([_Curves(config, console), keeper, StopOnRequest(request)]),
            log_interval=max(1, round(config.log_every_steps / config.rollout_steps)),
            reset_num_timesteps=resumed_at is None,
        )
    finally:
        logger.close()


class Features(BaseFeaturesExtractor):
    """Our encoder and the previous reward; Stable-Baselines3 gives it images channel-first."""

    def __init__(self, observation_space: spaces.Dict, make_policy: Callable[[], Policy]) -> None:
        policy = make_policy()
        super().__init__(observation_space, policy.encoder.output_size + 1)
        self.encoder = policy.encoder

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        images = observations["rgb"].to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return torch.cat([self.encoder(images), observations["reward"].clamp(-1.0, 1.0)], dim=-1)


class Witness:
    """Stable-Baselines3's PPO with the settings of one of ours.

    Args:
        config: of a feed-forward PPO run.
        env: a `ProcgenVecEnv` of its game.
        seed: of weights, actions and minibatches.

    Attributes:
        model: Stable-Baselines3's PPO.
    """

    def __init__(self, config: TrainConfig, env: ProcgenVecEnv, seed: int) -> None:
        settings = config.agent
        assert isinstance(settings, PPOConfig)
        self._config, self._env = config, env
        self.rewards = VecNormalize(
            env,
            norm_obs=False,
            norm_reward=settings.reward_transform == "normalize",
            clip_reward=10.0,
            gamma=settings.discount,
            epsilon=1e-8,
        )
        rate = settings.learning_rate
        self.model = stable_baselines3.PPO(
            "MultiInputPolicy",
            self.rewards,
            learning_rate=(lambda left: left * rate) if settings.learning_rate_decay else rate,
            n_steps=settings.rollout_steps,
            batch_size=settings.rollout_steps * config.slots // settings.minibatches,
            n_epochs=settings.epochs,
            gamma=settings.discount,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            clip_range_vf=settings.value_clip_range,
            ent_coef=settings.entropy_cost,
            vf_coef=settings.value_cost / 2,  # of the whole squared error; ours is of half of it
            max_grad_norm=settings.max_grad_norm,
            seed=seed % MAX_SEED,
            device=config.device,
            policy_kwargs={
                "features_extractor_class": Features,
                "features_extractor_kwargs": {"make_policy": self._policy},
                "net_arch": [],
                "ortho_init": False,
                "normalize_images": False,
                "optimizer_kwargs": {"eps": settings.adam_eps},
            },
        )

    def _policy(self) -> Policy:
        return Policy(self._config.policy_config, IMAGE_SHAPE, NUM_ACTIONS)

    def agent(self) -> PPO:
        """One of our agents with the present weights."""
        agent = PPO(
            self._config.policy_config,
            self._env,
            self._config.agent,
            seed=self._config.seed,
            device=self._config.device,
        )
        theirs: Any = self.model.policy
        agent.policy.encoder.load_state_dict(theirs.features_extractor.encoder.state_dict())
        agent.policy.actor.load_state_dict(theirs.action_net.state_dict())
        agent.policy.critic.load_state_dict(theirs.value_net.state_dict())
        agent.num_timesteps = self.model.num_timesteps
        agent.experiment = to_json(self._config)
        return agent

    def save(self, path: Path) -> None:
        """Write our checkpoint to `path`, and beside it what Stable-Baselines3 goes on from."""
        statistics = self.rewards.ret_rms
        own = _own_state(path)
        partial = own.with_name(f".{own.name}.partial")
        torch.save(
            {
                "parameters": self.model.get_parameters(),
                "num_timesteps": self.model.num_timesteps,
                "returns": [float(value) for value in (statistics.mean, statistics.var, statistics.count)],
            },
            partial,
        )
        partial.replace(own)
        self.agent().save(path)  # last, since its name is what a run is continued from

    def load(self, path: Path) -> None:
        """Take up what `save` wrote beside its checkpoint.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            content = torch.load(path, weights_only=True, map_location=self.model.device)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: the run cannot be continued, start it anew") from None
        except Exception as error:  # torch raises whatever a damaged archive leads to
            raise UserError(f"{path} is damaged: the run cannot be continued, start it anew") from error
        self.model.set_parameters(content["parameters"])
        self.model.num_timesteps = content["num_timesteps"]
        mean, variance, count = content["returns"]
        statistics = self.rewards.ret_rms
        statistics.mean, statistics.var, statistics.count = np.array(mean), np.array(variance), count


def _own_state(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".stable-baselines3.pt")


class _Keeper(BaseCallback):
    """Saves every so many steps after a rollout's learning, and at the end."""

    def __init__(self, witness: Witness, run: RunDirectory, every_steps: int | None) -> None:
        super().__init__()
        self._witness, self._run, self._every = witness, run, every_steps
        self._next = 0

    def _on_training_start(self) -> None:
        self._next = self.model.num_timesteps + (self._every or 0)

    def _on_rollout_start(self) -> None:
        if self._every is not None and self.model.num_timesteps >= self._next:
            self._save()
            self._next = self.model.num_timesteps + self._every

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        path = self._run.checkpoint_at(self.model.num_timesteps)
        if not path.exists():
            self._witness.save(path)


class _Curves(BaseCallback):
    """Logs what our agents log under the same tags, and says now and then how far it is."""

    def __init__(self, config: TrainConfig, console: Console) -> None:
        super().__init__()
        self._config, self._console = config, console
        self._episodes = EpisodeLog(config.games)
        self._began = self._shown = 0.0
        self._steps = 0

    def _on_training_start(self) -> None:
        self._began = self._shown = time.perf_counter()
        self._steps = self.model.num_timesteps

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._episodes.add(info["game"], info)
        if time.perf_counter() - self._shown >= LINE_SECONDS:
            self._shown = time.perf_counter()
            done, total = self.model.num_timesteps, self._config.total_steps
            self._console.print(f"{done / total:4.0%}  {done:,}/{total:,} steps", soft_wrap=True)
            self._console.file.flush()
        return True

    def _on_rollout_end(self) -> None:
        seconds = time.perf_counter() - self._began
        self.logger.record("time/sps", (self.model.num_timesteps - self._steps) / seconds)
        for tag, value in self._episodes.metrics().items():
            self.logger.record(tag, value)
        self._began, self._steps = time.perf_counter(), self.model.num_timesteps
