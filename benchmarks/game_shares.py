"""What each game of a run of PPO has to do with the direction that training takes.

    python -m benchmarks.game_shares runs/NAME/checkpoints/step_N.ckpt --games bigfish maze --json shares.json

The agent goes on playing, with its rewards scaled as they were, and the estimates of some rollouts are looked at game
by game; what is printed are means over rollouts. A game has its share of the squared advantages, which are normalised
over all games together, and its part of the gradients of the policy's and of the value's loss.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.ppo import PPOLearner
from agents.rollout import Batch
from agents.surrogate import surrogate_losses
from benchmarks.machine import describe_machine
from benchmarks.rollouts import look_at_rollouts
from common.cli import run_with_options
from envs import TASK_SETS


@dataclass(frozen=True)
class Settings:
    """What to look at.

    Attributes:
        checkpoint: of a run of PPO.
        games: to play.
        num_envs: environments.
        rollouts: to look at; as many before them only take environments away from the starts of episodes.
        seed: of environments and actions.
        json: file to write.
    """

    checkpoint: Path
    games: tuple[str, ...] = TASK_SETS["easy6"]
    num_envs: int = 72
    rollouts: int = 4
    seed: int = 0
    json: Path | None = None


@dataclass(frozen=True)
class Part:
    """What one game adds to a batch of all.

    Attributes:
        share: of the squared distances of advantages from their mean over all games.
        advantage_deviation: of its own advantages.
        return_deviation: of what its values are fitted to.
        explained: share of the variance of these that its values explain.
        policy_gradient: norm of its part of the gradient of the clipped surrogate.
        value_gradient: norm of its part of the gradient of the value loss, weighted as in training.
    """

    share: float
    advantage_deviation: float
    return_deviation: float
    explained: float
    policy_gradient: float
    value_gradient: float


def shares(learner: PPOLearner, rollout: Batch, games: Sequence[str]) -> dict[str, Part]:
    """The part of each game in what `learner` would learn from `rollout`; `games` of its environments."""
    estimates = learner.estimate(rollout)
    advantages = estimates.advantages
    distances = (advantages - advantages.mean()) / advantages.std()
    estimates = replace(estimates, advantages=distances)
    found = {}
    for game in dict.fromkeys(games):
        envs = torch.from_numpy(np.flatnonzero(np.asarray(games) == game))
        own, states = estimates.select(envs), {name: state[envs] for name, state in rollout.states.items()}
        losses = surrogate_losses(
            learner.policy,
            learner.mixed(own, states),
            clip_range=learner.config.clip_range,
            value_cost=learner.config.value_cost,
            entropy_cost=0.0,
            total=lambda tensor: tensor,
            value_clip_range=learner.config.value_clip_range,
            normalize_advantages=False,
        )
        weight = len(envs) / len(games)
        terms = losses.metrics["policy_loss"], learner.config.value_cost * losses.metrics["value_loss"]
        policy_gradient, value_gradient = (_norm(weight * term, learner) for term in terms)
        found[game] = Part(
            share=(own.advantages.square().sum() / distances.square().sum()).item(),
            advantage_deviation=advantages[:, envs].std().item(),
            return_deviation=own.returns.std().item(),
            explained=(1.0 - (own.returns - own.values).var() / own.returns.var()).item(),
            policy_gradient=policy_gradient,
            value_gradient=value_gradient,
        )
    return found


def _norm(loss: Tensor, learner: PPOLearner) -> float:
    parameters = list(learner.policy.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return float(torch.cat([gradient.flatten() for gradient in found]).norm())


def measure(settings: Settings) -> dict[str, Part]:
    """The part of each game.

    Raises:
        UserError: there is no such checkpoint, or it is not of PPO.
    """
    found = look_at_rollouts(
        settings.checkpoint, settings.games, settings.num_envs, settings.rollouts, settings.seed, shares
    )
    return {game: _mean([parts[game] for parts in found]) for game in found[0]}


def _mean(parts: Sequence[Part]) -> Part:
    table = np.array([list(asdict(part).values()) for part in parts])
    return Part(*table.mean(axis=0).tolist())


def main(settings: Settings) -> None:
    """Print a line for each game, and write them if asked to."""
    found = measure(settings)
    print(f"{'':12}" + "".join(f"{name.replace('_', ' '):>22}" for name in Part.__dataclass_fields__))
    for game, part in found.items():
        print(f"{game:12}" + "".join(f"{value:22.3f}" for value in asdict(part).values()))
    if settings.json is not None:
        command = (
            f"python -m benchmarks.game_shares {settings.checkpoint.name} --games {' '.join(settings.games)}"
        )
        command += f" --num-envs {settings.num_envs} --rollouts {settings.rollouts} --seed {settings.seed}"
        parts = {game: asdict(part) for game, part in found.items()}
        record = {"command": command, "machine": describe_machine(), "games": parts}
        settings.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, main, "python -m benchmarks.game_shares", "checkpoint"))
