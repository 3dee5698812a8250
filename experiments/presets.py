"""Named runs: what `python train.py NAME` starts from. Every setting can be overridden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agents import AgentConfig, ImpalaConfig, PPOConfig
from envs import TASK_SETS
from policies import core_config
from records.config import TrainConfig, with_algorithm

ALL_SPLITS = ("train", "test1", "test2", "test3")


@dataclass(frozen=True)
class Preset:
    """A named run.

    Attributes:
        summary: what it does, in one line.
        config: its settings.
        agents: hyperparameters for algorithms other than its own, where their defaults do not fit its slots.
    """

    summary: str
    config: TrainConfig
    agents: Mapping[str, AgentConfig] = field(default_factory=dict)

    def with_algorithm(self, name: str) -> TrainConfig:
        """The settings with the learning algorithm `name`."""
        config = with_algorithm(self.config, name)
        if name == self.config.algorithm or name not in self.agents:
            return config
        return replace(config, agent=self.agents[name])


# Irie et al. (arXiv 2202.05780): the defaults of `ImpalaConfig` and of the core are the published ones. They
# have 48 actors that fill batches of 32 unrolls as they come. Here all slots finish their unrolls together:
# the slots must be whole batches: 96 slots are 3 batches of 32 unrolls, and also a multiple of 6 games.
_PAPER = TrainConfig(
    policy="srwm",
    core=core_config("srwm"),
    algorithm="impala",
    agent=ImpalaConfig(batch_unrolls=32),
    total_steps=300_000_000,
    checkpoint_every_steps=5_000_000,
    log_every_steps=100_000,
    evaluation_episodes=200,
    evaluation_splits=ALL_SPLITS,
)

PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "SRWM with IMPALA on six easy games, about 5 minutes on 2 cores: to see everything work",
        TrainConfig(
            games=TASK_SETS["easy6"],
            slots=66,
            total_steps=120_000,
            checkpoint_every_steps=50_000,
            log_every_steps=3_300,
            evaluation_episodes=20,
            evaluation_splits=("train", "test1"),
            # The most likely action of a policy that has hardly begun to learn is often the same at every step.
            evaluation_greedy=False,
        ),
        # The usual 8 minibatches do not divide 66 slots, and rollouts of 256 steps leave few updates here.
        {"ppo": PPOConfig(minibatches=2, rollout_steps=32)},
    ),
    "paper-easy6": Preset(
        "the SRWM paper's six easy games with its hyperparameters, 300 M steps",
        replace(_PAPER, games=TASK_SETS["easy6"], slots=96),
    ),
    "paper-memory4": Preset(
        "the SRWM paper's four memory-mode games, 500 levels, 300 M steps",
        replace(_PAPER, games=TASK_SETS["memory4"], mode="memory", slots=64),
    ),
    "expert": Preset(
        "the SRWM paper's single-game expert, 50 M steps; choose the game with --games",
        replace(_PAPER, games=("starpilot",), slots=64, total_steps=50_000_000),
    ),
    "openai-ppo-easy": Preset(
        "OpenAI's baseline: feed-forward PPO on one easy game, 25 M steps; choose the game with --games",
        TrainConfig(
            games=("starpilot",),
            slots=64,
            total_steps=25_000_000,
            policy="feedforward",
            core=core_config("feedforward"),
            algorithm="ppo",
            agent=PPOConfig(entropy_cost=0.01),
            log_every_steps=16_384,
            evaluation_episodes=200,
            evaluation_splits=("train", "test1"),
        ),
    ),
}
"""Every preset by name."""
