"""Named runs: what `python train.py NAME` starts from. Every setting can be overridden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agents import AgentConfig, ImpalaConfig, PPOConfig
from agents.appo import AppoConfig
from envs import TASK_SETS
from evaluation import ALL_SPLITS
from policies import PolicyConfig, policy_config
from records.config import TrainConfig, configure
from records.sequence import SequenceConfig


@dataclass(frozen=True)
class Preset:
    """A named run.

    Attributes:
        summary: what it does, in one line.
        agents: hyperparameters for algorithms other than its own, where their defaults do not fit its environments.
    """

    summary: str
    config: TrainConfig
    agents: Mapping[str, AgentConfig] = field(default_factory=dict)

    def configure(self, data: object, start: TrainConfig, problems: list[str]) -> TrainConfig:
        """As `records.config.configure`; an algorithm that `data` chooses starts from the preset's values for it."""
        name = data.get("algorithm") if isinstance(data, Mapping) else None
        if isinstance(name, str) and name in self.agents and name != start.algorithm_name:
            start = replace(start, agent=self.agents[name])
        return configure(data, start, problems)


# Irie et al. (arXiv 2202.05780): the defaults of `ImpalaConfig` and of the core are the published ones. They
# have 48 actors that fill batches of 32 unrolls as they come. Here all environments finish their unrolls together and
# must be whole batches: 96 environments are 3 batches of 32 unrolls, and also a multiple of 6 games.
_PAPER = TrainConfig(
    policy=PolicyConfig(precision="float32"),
    agent=ImpalaConfig(batch_unrolls=32),
    total_steps=300_000_000,
    checkpoint_every_steps=5_000_000,
    log_every_steps=100_000,
    evaluation_episodes=200,
    evaluation_splits=ALL_SPLITS,
)

# A light encoder, and sampled actions in scores and videos: the most likely action of a policy that has not learned
# much is often the same at every step. docs/learning.md says why these values.
_LIGHT = TrainConfig(
    policy=policy_config("srwm_sharp", encoder="early_pool", initial_weights="quiet-layers", bypass=True),
    agent=AppoConfig(learning_rate=3e-4, rollout_steps=64, unroll_steps=32),
    evaluation_greedy=False,
)

# CORA (Powers et al., arXiv 2110.10067): its configuration for six games one after another. Its encoder is larger, its
# core also sees the last action, and two threads of its learner make runs that cannot be repeated.
_CORA = TrainConfig(
    games=("climber", "dodgeball", "ninja", "starpilot", "bigfish", "fruitbot"),
    num_envs=64,
    policy=policy_config("feedforward", precision="float32"),
    agent=ImpalaConfig(learning_rate=4e-4, rollout_steps=20, batch_unrolls=32),
    total_steps=30_000_000,
    checkpoint_every_steps=1_000_000,
    log_every_steps=50_000,
    evaluation_episodes=None,  # the sequence's own evaluations say more
    evaluation_greedy=False,
    videos=False,
    sequence=SequenceConfig(steps_per_task=5_000_000, evaluate_every_steps=250_000),
)


def _settled(config: TrainConfig) -> TrainConfig:
    """`config` with what follows from its sequence."""
    return configure({}, config, [])


def _single_levels(game: str, *levels: int) -> TrainConfig:
    """CORA's sequences of single levels of one game, three times over."""
    tasks = tuple(f"{game}/easy/{level}:{level + 1}" for level in levels)
    sequence = replace(_CORA.sequence, tasks=tasks, steps_per_task=3_000_000, cycles=3)
    return _settled(replace(_CORA, games=(game,), sequence=sequence))


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "SRWM with APPO on six easy games, some minutes on 2 cores with scores and videos: to see all work",
        replace(
            _LIGHT,
            total_steps=198_000,
            checkpoint_every_steps=99_000,
            log_every_steps=6_600,
            evaluation_episodes=10,
        ),
        # The usual 8 minibatches do not divide 66 environments, and rollouts of 256 steps leave few updates here.
        {"ppo": PPOConfig(minibatches=2, rollout_steps=32)},
    ),
    "learn": Preset(
        "feed-forward APPO with a light encoder on one easy game: to see it learn; choose the game with --games",
        replace(
            _LIGHT,
            games=("starpilot",),
            num_envs=64,
            total_steps=1_015_808,
            policy=policy_config("feedforward", encoder="early_pool"),
            agent=AppoConfig(),
            log_every_steps=16_384,
        ),
    ),
    "paper-easy6": Preset(
        "the SRWM paper's six easy games with its hyperparameters, 300 M steps",
        replace(_PAPER, games=TASK_SETS["easy6"], num_envs=96),
    ),
    "paper-memory4": Preset(
        "the SRWM paper's four memory-mode games, 500 levels, 300 M steps",
        replace(_PAPER, games=TASK_SETS["memory4"], mode="memory", num_envs=64),
    ),
    "expert": Preset(
        "the SRWM paper's single-game expert, 50 M steps; choose the game with --games",
        replace(_PAPER, games=("starpilot",), num_envs=64, total_steps=50_000_000),
    ),
    "openai-ppo-easy": Preset(
        "OpenAI's baseline: feed-forward PPO on one easy game, 25 M steps; choose the game with --games",
        TrainConfig(
            games=("starpilot",),
            num_envs=64,
            total_steps=25_000_000,
            policy=policy_config("feedforward", precision="float32"),
            agent=PPOConfig(),
            log_every_steps=16_384,
            evaluation_episodes=200,
        ),
    ),
    "continual-quick": Preset(
        "three easy games one after another, some minutes on 2 cores: to see forgetting, and methods work",
        _settled(
            TrainConfig(
                games=("bigfish", "fruitbot", "starpilot"),
                num_envs=64,
                total_steps=120_000,
                checkpoint_every_steps=20_000,
                log_every_steps=3_200,
                evaluation_episodes=None,
                evaluation_greedy=False,
                videos=False,
                sequence=SequenceConfig(
                    steps_per_task=40_000,
                    evaluate_every_steps=10_000,
                    evaluation_episodes=4,
                    boundary_episodes=10,
                ),
            )
        ),
        {"ppo": PPOConfig(minibatches=4, rollout_steps=32)},
    ),
    "cora-procgen": Preset(
        "CORA's six games one after another, 5 M steps each; --sequence.cycles 5 for its five cycles",
        _settled(_CORA),
    ),
    "cora-climber-levels": Preset(
        "CORA's four single levels of climber, 3 M steps each, three times over",
        _single_levels("climber", 3, 16, 42, 46),
    ),
    "cora-fruitbot-levels": Preset(
        "CORA's five single levels of fruitbot, 3 M steps each, three times over",
        _single_levels("fruitbot", 1, 10, 11, 12, 14),
    ),
    "cora-miner-levels": Preset(
        "CORA's four single levels of miner, 3 M steps each, three times over",
        _single_levels("miner", 16, 25, 29, 31),
    ),
}
"""Every preset by name."""
