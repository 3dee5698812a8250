"""IMPALA with single ingredients of PPO: which of them makes it learn in fewer steps?

    python -m benchmarks.impala_ingredients --passes 3 --adam --normalize-advantages --trace-lambda 0.95 \
        --discount 0.999 --rewards normalize --learning-rate 5e-4 --json passes.json

The opposite, PPO without single ingredients, needs no program of its own: `python train.py openai-ppo-easy --games
starpilot --policy feedforward --agent.epochs 1`, and so on.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor

from agents import IMPALA
from agents.impala import ImpalaLearner
from agents.rollout import Batch
from agents.vtrace import VTrace
from benchmarks.machine import describe_machine
from common.cli import Flag, parse_options, run_command
from common.errors import UserError
from envs import ProcgenVecEnv
from policies import policy_config

PROGRAM = "python -m benchmarks.impala_ingredients"
LOG_EVERY_STEPS = 12_800


@dataclass(frozen=True)
class Settings:
    """Train a feed-forward IMPALA agent on one game with single ingredients of PPO, and keep its curve.

    Attributes:
        json: file to write.
        game: to train on.
        steps: of all environments together.
        adam: Adam in place of RMSProp.
        normalize_advantages: to mean 0 and deviation 1 in each batch.
        passes: over each rollout.
        trace_lambda: of V-trace.
        discount: per step.
        rewards: transform: clip, normalize or none.
        learning_rate: constant.
        batch_unrolls: unrolls of one update.
        seed: of everything.
    """

    json: Path
    game: str = "starpilot"
    steps: int = 500_000
    adam: Flag = False
    normalize_advantages: Flag = False
    passes: int = 1
    trace_lambda: float = 1.0
    discount: float = 0.99
    rewards: str = "clip"
    learning_rate: float = 6e-4
    batch_unrolls: int = 16
    seed: int = 0


class NormalizingLearner(ImpalaLearner):
    """IMPALA's learner with advantages of mean 0 and deviation 1 in each batch."""

    def policy_loss(self, log_probs: Tensor, batch: Batch, estimates: VTrace) -> Tensor:
        advantages = estimates.weighted_advantages
        scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return super().policy_loss(log_probs, batch, estimates._replace(weighted_advantages=scaled))


class Normalizing(IMPALA):
    """IMPALA with that learner."""

    learner_class = NormalizingLearner


class _Curve(KVWriter):
    """Keeps the few numbers of each entry that a curve is made of."""

    def __init__(self) -> None:
        self.columns: dict[str, list[float | None]] = {"steps": [], "return": [], "entropy": []}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        tags = ("time/total_timesteps", "rollout/ep_rew_mean", "train/entropy")
        for column, tag in zip(self.columns.values(), tags, strict=True):
            column.append(round(float(key_values[tag]), 3) if tag in key_values else None)

    def close(self) -> None:
        pass


def train(settings: Settings) -> dict[str, list[float | None]]:
    """The curve of the agent that `settings` describe.

    Raises:
        UserError: a setting is impossible.
    """
    env = ProcgenVecEnv(settings.game, 64, seed=settings.seed)
    agent = (Normalizing if settings.normalize_advantages else IMPALA)(
        replace(policy_config("feedforward"), precision="bfloat16"),
        env,
        seed=settings.seed,
        learning_rate=settings.learning_rate,
        learning_rate_decay=False,
        discount=settings.discount,
        trace_lambda=settings.trace_lambda,
        reward_transform=settings.rewards,
        batch_unrolls=settings.batch_unrolls,
        passes=settings.passes,
        optimizer="adam" if settings.adam else "rmsprop",
        # PPO's bound, for a sum of losses.
        max_grad_norm=0.5 * 50 * settings.batch_unrolls if settings.adam else 40.0,
    )
    curve = _Curve()
    agent.set_logger(Logger(None, [curve]))
    rollout = 64 * agent.config.rollout_steps
    agent.learn(settings.steps, log_interval=max(1, LOG_EVERY_STEPS // rollout))
    env.close()
    return curve.columns


def main() -> int:
    """Write the file that the command line names."""
    settings = parse_options(Settings, sys.argv[1:], PROGRAM, "")
    if not settings.json.parent.is_dir():
        raise UserError(f"--json {settings.json} cannot be written, there is no such directory")
    record = {
        "command": shlex.join([*PROGRAM.split(), *sys.argv[1:]]),
        "machine": describe_machine(),
        "settings": {**asdict(settings), "json": None},
        "curve": train(settings),
    }
    settings.json.write_text(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
