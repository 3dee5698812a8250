"""How much of what PPO learns from a rollout holds for experience that it has not learned from.

    python -m benchmarks.held_out_gain runs/NAME/checkpoints/step_N.ckpt --game fruitbot --json gain.json
    python -m benchmarks.held_out_gain CHECKPOINT --vary learning_rate=1e-4 epochs=1 epochs=1,minibatches=4

The agent of the checkpoint plays some rollouts. From the first one it learns, as training would have gone on; the gain
is the mean of (ratio - 1) times the normalised advantage, the first-order estimate of how much better the new policy
is (Kakade and Langford 2002), on that rollout and on the others, which the same weights have played: there it owes
nothing to noise that was learned. Every variation begins from the same weights, optimizer and rollouts. The standard
error is over rollouts held out, not over rollouts learned from; what later phases of learning bring is not seen.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from agents.config import AgentConfig
from agents.losses import action_log_probs, normalized
from agents.ppo import PPOLearner
from agents.rollout import Batch, Sequences
from benchmarks.machine import describe_machine
from benchmarks.rollouts import look_at_rollouts
from common.cli import run_with_options
from common.config import Range, assign, check, problems
from common.errors import raise_problems


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        checkpoint: of a run of PPO.
        game: to play.
        vary: hyperparameters to learn with instead of the run's, as name=value, several joined by commas; each is
            compared with the run's own.
        num_envs: environments.
        held_out: rollouts that are not learned from.
        seed: of environments and actions.
        json: file to write.
    """

    checkpoint: Path
    game: str = "fruitbot"
    vary: tuple[str, ...] = ()
    num_envs: int = 64
    held_out: Annotated[int, Range(2, 1000)] = 4
    seed: int = 0
    json: Path | None = None


class Estimated(NamedTuple):
    """A rollout with the estimates that the weights made which played it."""

    sequences: Sequences
    advantages: Tensor


@dataclass(frozen=True)
class Gain:
    """What one phase of learning did.

    Attributes:
        learned: gain on the rollout that was learned from.
        held_out: mean gain on the others.
        standard_error: of `held_out`, over rollouts.
        divergence: of the new policy from the old one on the others, nats.
        value_error: change of the mean squared error of values on the others.
    """

    learned: float
    held_out: float
    standard_error: float
    divergence: float
    value_error: float


def gain(learner: PPOLearner, config: AgentConfig, rollouts: Sequence[Batch]) -> Gain:
    """What learning from the first of `rollouts` with `config` does; the learner is left as it was."""
    before, own = deepcopy(learner.state()), learner.config
    learned, *others = (estimated(learner, rollout) for rollout in rollouts)
    errors = [outcome(learner, other).value_error for other in others]
    try:
        set_config(learner, config)
        learner.learn(rollouts[0], 0)
        first, *found = (outcome(learner, each) for each in (learned, *others))
    finally:
        set_config(learner, own)
        learner.load_state(before)
    gains, divergences, after = (torch.tensor(column) for column in zip(*found, strict=True))
    return Gain(
        learned=first.gain,
        held_out=gains.mean().item(),
        standard_error=gains.std().item() / math.sqrt(len(found)),
        divergence=divergences.mean().item(),
        value_error=(after - torch.tensor(errors)).mean().item(),
    )


def set_config(learner: PPOLearner, config: AgentConfig) -> None:
    """Let the learner go on with other hyperparameters."""
    learner.config = config  # type: ignore[assignment]  # of PPO, since it is a variation of its own
    for group in learner.optimizer.param_groups:
        group["lr"] = config.learning_rate


def estimated(learner: PPOLearner, rollout: Batch) -> Estimated:
    """The unrolls of a rollout as the learner takes them, and its advantages, normalised over all of it."""
    sequences = learner.mixed(learner.estimate(rollout), rollout.states)
    return Estimated(sequences, normalized(sequences.advantages))


class Outcome(NamedTuple):
    """What a policy makes of a rollout that another one has played."""

    gain: float
    divergence: float
    value_error: float


@torch.no_grad()
def outcome(learner: PPOLearner, rollout: Estimated, batch_steps: int = 2048) -> Outcome:
    """What the learner's policy makes of `rollout`, a batch of so many steps at a time."""
    sequences, advantages = rollout
    steps, count = sequences.actions.shape
    sums = torch.zeros(3, dtype=torch.float64)
    for chosen in torch.arange(count).split(max(1, batch_steps // steps)):
        part = sequences.select(chosen)
        output = learner.policy(part.rgb, part.reward_input, part.initial_state, part.episode_start)
        log_ratio = action_log_probs(output.logits, part.actions) - part.log_probs
        terms = (
            log_ratio.expm1() * advantages[:, chosen],
            log_ratio.expm1() - log_ratio,
            (output.value - part.returns).square(),
        )
        sums += torch.stack([term.sum().double() for term in terms])
    return Outcome(*(sums / (steps * count)).tolist())


def varied(config: AgentConfig, text: str) -> AgentConfig:
    """`config` with the values in a text such as "epochs=1,minibatches=4".

    Raises:
        UserError: an unknown name, or a value that is not possible.
    """
    found = [f"{part!r} is no setting: write name=value" for part in text.split(",") if "=" not in part]
    raise_problems(found)
    changed = assign(config, dict(part.split("=", 1) for part in text.split(",")), found)
    raise_problems(found or problems(changed))
    return changed


def measure(settings: Settings) -> dict[str, Gain]:
    """The gain with the run's own settings, "as trained", and with each variation of them.

    Raises:
        UserError: a setting is out of range, there is no such checkpoint, it is not of PPO, or a variation does not
            fit it.
    """
    check(settings)
    played = look_at_rollouts(
        settings.checkpoint,
        (settings.game,),
        settings.num_envs,
        1 + settings.held_out,
        settings.seed,
        lambda learner, rollout, games: (learner, deepcopy(rollout)),
    )
    learner, rollouts = played[0][0], [rollout for _, rollout in played]
    configs = {"as trained": learner.config} | {text: varied(learner.config, text) for text in settings.vary}
    raise_problems([line for config in configs.values() for line in config.problems(settings.num_envs)])
    return {name: gain(learner, config, rollouts) for name, config in configs.items()}


def main(settings: Settings) -> None:
    """Print a line for each variation, and write them if asked to."""
    found = measure(settings)
    width = max(map(len, found)) + 2
    print(f"{'':{width}}" + "".join(f"{name.replace('_', ' '):>16}" for name in Gain.__dataclass_fields__))
    for name, one in found.items():
        print(f"{name:{width}}" + "".join(f"{value:16.4f}" for value in asdict(one).values()))
    if settings.json is not None:
        command = f"python -m benchmarks.held_out_gain {settings.checkpoint.name} --game {settings.game}"
        command += f" --vary {' '.join(settings.vary)}" if settings.vary else ""
        command += f" --num-envs {settings.num_envs} --held-out {settings.held_out} --seed {settings.seed}"
        gains = {name: asdict(one) for name, one in found.items()}
        record = {"command": command, "machine": describe_machine(), "gains": gains}
        settings.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, main, "python -m benchmarks.held_out_gain", "checkpoint"))
