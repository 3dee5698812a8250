"""How much of IMPALA's gradient is signal: its terms over many batches of one policy.

    python -m benchmarks.gradient_noise CHECKPOINT --json noise.json

For each term of the loss and each lambda of V-trace, the gradients g_1 ... g_n of n batches give an unbiased estimate
of the squared norm of the expected gradient, |mean(g)|^2 - var/n, and of its variance var. Their ratio is the
signal-to-noise ratio of one batch; a negative one means that n batches show no signal at all.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import agents
from agents import IMPALA, Agent, ImpalaConfig
from agents.losses import action_log_probs, entropy, policy_gradient_loss, value_loss
from agents.rollout import Batch
from agents.vtrace import vtrace
from benchmarks.machine import describe_machine
from common.cli import run_with_options
from envs import ProcgenVecEnv


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        checkpoint: of IMPALA.
        game: to play.
        num_envs: environments.
        batch_unrolls: unrolls of one batch.
        rollouts: to take batches from.
        lambdas: of V-trace.
        seed: of environments and actions.
        json: file to write.
    """

    checkpoint: Path
    game: str = "starpilot"
    num_envs: int = 64
    batch_unrolls: int = 16
    rollouts: int = 3
    lambdas: tuple[float, ...] = (1.0, 0.95)
    seed: int = 0
    json: Path | None = None


def gradients(agent: Agent, config: ImpalaConfig, batch: Batch, trace_lambda: float) -> dict[str, Tensor]:
    """The gradient of each term of the loss, weighted as in training, as one vector of all parameters."""
    output = agent.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
    logits, values = output.logits[:-1], output.value[:-1]
    log_probs = action_log_probs(logits, batch.actions)
    estimates = vtrace(
        batch.log_probs,
        log_probs,
        batch.rewards,
        config.discount * (~batch.dones).float(),
        values,
        output.value[-1],
        trace_lambda=trace_lambda,
    )
    terms = {
        "policy": policy_gradient_loss(log_probs, estimates.weighted_advantages).sum(),
        "value": config.value_cost * value_loss(values, estimates.targets).sum(),
        "entropy": -config.entropy_cost * entropy(logits).sum(),
    }
    parameters = list(agent.policy.parameters())

    def vector(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found])

    return {name: vector(loss) for name, loss in terms.items()}


def noise(samples: list[Tensor]) -> dict[str, float]:
    """Mean norm of the samples, and their signal-to-noise ratio."""
    stacked = torch.stack(samples)
    mean = stacked.mean(0)
    variance = (stacked - mean).square().sum(1).sum() / (len(samples) - 1)
    signal = mean.square().sum() - variance / len(samples)
    return {"norm": stacked.norm(dim=1).mean().item(), "signal_to_noise": (signal / variance).item()}


def measure(settings: Settings) -> dict[str, dict[str, float]]:
    """Norm and signal-to-noise ratio of one batch by term and lambda."""
    env = ProcgenVecEnv(settings.game, settings.num_envs, seed=settings.seed)
    trained = agents.load(settings.checkpoint, device="cpu")
    agent = IMPALA(trained.policy_config, env, seed=settings.seed, device="cpu")
    agent.policy.load_state_dict(trained.policy.state_dict())
    config = ImpalaConfig()
    found: dict[str, list[Tensor]] = {}
    seen = 0

    def keep(batch: Batch, step: int) -> dict[str, float]:
        """In place of learning; the first rollout only leaves the starts of episodes behind."""
        nonlocal seen
        seen += 1
        if seen > 1:
            for envs in torch.arange(settings.num_envs).split(settings.batch_unrolls):
                for trace_lambda in settings.lambdas:
                    for name, vector in gradients(agent, config, batch.select(envs), trace_lambda).items():
                        found.setdefault(f"{name}, lambda {trace_lambda}", []).append(vector)
        return {}

    agent.learner.learn = keep  # type: ignore[method-assign, assignment]  # measures instead of learning
    agent.learn((1 + settings.rollouts) * settings.num_envs * config.rollout_steps)
    env.close()
    return {name: noise(samples) for name, samples in found.items()}


def main(settings: Settings) -> None:
    """Print a line for each term, and write them if asked to."""
    found = measure(settings)
    for name, values in found.items():
        print(f"{name:22} norm {values['norm']:8.1f}   signal to noise {values['signal_to_noise']:8.4f}")
    if settings.json is not None:
        unrolls, rollouts = settings.batch_unrolls, settings.rollouts
        command = f"python -m benchmarks.gradient_noise {settings.checkpoint.name} --game {settings.game}"
        command += f" --num-envs {settings.num_envs} --batch-unrolls {unrolls} --rollouts {rollouts}"
        record = {"command": command, "machine": describe_machine(), "terms": found}
        settings.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, main, "python -m benchmarks.gradient_noise", "checkpoint"))
