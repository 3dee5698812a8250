"""What the encoder's precision does to PPO's gradient, beside what another minibatch does to it.

    python -m benchmarks.precision_gradient runs/NAME/checkpoints/step_N.ckpt --game fruitbot --json precision.json

The gradients of the same minibatches are made with the encoder in bfloat16 and in float32, from the same weights, and
compared by their cosine; two minibatches of one rollout are compared in the same way. Printed are means over rollouts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from agents.ppo import PPOLearner
from agents.rollout import Batch, Sequences
from benchmarks.machine import describe_machine
from benchmarks.rollouts import look_at_rollouts
from common.cli import run_with_options
from policies import Policy


@dataclass(frozen=True)
class Settings:
    """What to look at.

    Attributes:
        checkpoint: of a run of PPO.
        game: to play.
        num_envs: environments.
        rollouts: to look at.
        seed: of environments and actions.
        json: file to write.
    """

    checkpoint: Path
    game: str = "fruitbot"
    num_envs: int = 64
    rollouts: int = 2
    seed: int = 0
    json: Path | None = None


@dataclass(frozen=True)
class Agreement:
    """How alike gradients are.

    Attributes:
        precisions: cosine between bfloat16 and float32, of the same minibatch.
        least_alike: the same, of the parameter for which it is smallest.
        minibatches: cosine between two minibatches, in float32.
        divergence: of the policy in bfloat16 from that in float32, nats.
    """

    precisions: float
    least_alike: float
    minibatches: float
    divergence: float


def agreement(learner: PPOLearner, rollout: Batch, games: list[str]) -> Agreement:
    """How alike the gradients are that `learner` would follow in the first two minibatches of `rollout`."""
    one, other = islice(learner.batches(rollout), 2)
    trained, image_shape = learner.policy, rollout.rgb.shape[2:]
    try:
        learner.policy = in_precision(trained, image_shape, "bfloat16")
        low, low_logits = gradients(learner, one)
        learner.policy = in_precision(trained, image_shape, "float32")
        high, high_logits = gradients(learner, one)
        another, _ = gradients(learner, other)
    finally:
        learner.policy = trained
    in_low, in_high = (logits.log_softmax(-1).flatten(0, 1) for logits in (low_logits, high_logits))
    return Agreement(
        precisions=_cosine(torch.cat(low), torch.cat(high)),
        least_alike=min(_cosine(*pair) for pair in zip(low, high, strict=True)),
        minibatches=_cosine(torch.cat(high), torch.cat(another)),
        divergence=kl_div(in_high, in_low, log_target=True, reduction="batchmean").item(),
    )


def in_precision(policy: Policy, image_shape: Sequence[int], precision: str) -> Policy:
    """The same weights with an encoder that computes in this precision."""
    height, width, channels = image_shape
    config = replace(policy.config, precision=precision)
    twin = Policy(config, (height, width, channels), policy.num_actions)
    twin.load_state_dict(policy.state_dict())
    return twin


def gradients(learner: PPOLearner, batch: Sequences) -> tuple[list[Tensor], Tensor]:
    """The gradient of each parameter, flat, and the logits of `batch`."""
    losses = learner.losses(batch)
    found = torch.autograd.grad(losses.total, list(learner.policy.parameters()), materialize_grads=True)
    return [gradient.flatten() for gradient in found], losses.output.logits.detach()


def _cosine(one: Tensor, other: Tensor) -> float:
    return cosine_similarity(one.double(), other.double(), dim=0).item()


def measure(settings: Settings) -> Agreement:
    """Means over rollouts.

    Raises:
        UserError: there is no such checkpoint, or it is not of PPO.
    """
    found = look_at_rollouts(
        settings.checkpoint, (settings.game,), settings.num_envs, settings.rollouts, settings.seed, agreement
    )
    table = np.array([list(asdict(one).values()) for one in found])
    return Agreement(*table.mean(axis=0).tolist())


def main(settings: Settings) -> None:
    """Print what was found, and write it if asked to."""
    found = asdict(measure(settings))
    for name, value in found.items():
        print(f"{name.replace('_', ' '):14}{value:.4g}")
    if settings.json is not None:
        command = f"python -m benchmarks.precision_gradient {settings.checkpoint.name} --game {settings.game}"
        command += f" --num-envs {settings.num_envs} --rollouts {settings.rollouts} --seed {settings.seed}"
        record = {"command": command, "machine": describe_machine(), "agreement": found}
        settings.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, main, "python -m benchmarks.precision_gradient", "checkpoint"))
