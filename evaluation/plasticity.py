"""Whether a network can still learn: units that say nothing, directions that are left, size of the weights.

Dormant units are those of Sokar et al. (arXiv 2302.12902): whose mean absolute activation is at most τ times that of
all units. The effective rank is that of Roy & Vetterli (2007): the exponential of the entropy of the normalised
singular values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents import Agent
from envs import ProcgenVecEnv, Task
from evaluation.play import Player, action_seed, sampler
from evaluation.progress import Progress, Report, no_report
from evaluation.tasks import SEED
from policies import Policy, PolicyOutput, State

STREAMS, STEPS = 32, 32
"""Environments, and steps of each, that activations are taken from."""
DORMANT = 0.025
NUMBERS = (
    "dormant encoder units",
    "dormant core units",
    "effective rank of features",
    "effective rank of the core",
    "weight norm",
)
"""What `measure` tells."""


def dormant_share(activations: Tensor, threshold: float = DORMANT) -> float:
    """The share of units (columns) that say next to nothing in all samples (rows)."""
    size = activations.abs().mean(0)
    return float((size <= threshold * size.mean()).double().mean())


def effective_rank(activations: Tensor) -> float:
    """In how many directions the samples (rows) lie, as a number from 1 to that of the units (columns)."""
    values = torch.linalg.svdvals(activations.double())
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(torch.exp(-(shares * shares.log()).sum()))


def weight_norm(policy: Policy) -> float:
    """The Euclidean norm of all weights together."""
    return float(torch.stack([p.detach().double().square().sum() for p in policy.parameters()]).sum().sqrt())


class _Listening(Player):
    """Keeps what the encoder and the core say."""

    def __init__(self, policy: Policy, envs: Sequence[VecEnv], seed: int, tasks: Sequence[int]) -> None:
        self.features: list[Tensor] = []
        self.hidden: list[Tensor] = []
        super().__init__(policy, envs, [sampler(seed, policy.device)], tasks)

    def _run_policy(self, rgb: Tensor, reward: Tensor, state: State, starts: Tensor) -> PolicyOutput:
        output = super()._run_policy(rgb, reward, state, starts)
        assert output.features is not None
        assert output.hidden is not None
        self.features.append(output.features[0, :, :-1].cpu())  # the last one is the reward
        self.hidden.append(output.hidden[0].cpu())
        return output


def measure(
    agent: Agent, task: Task, number: int = 0, report: Report = no_report, *, num_threads: int = 4
) -> dict[str, float]:
    """What there is to say about `agent` while it plays `task`, by name; the same at every call.

    Args:
        agent: is left as it was.
        task: on the levels that it is trained on.
        number: of the task, for a policy that is told.
        report: called after each step.
        num_threads: native threads that step the games; changes no result.
    """
    levels = task.level_range
    env = ProcgenVecEnv([task.game], STREAMS, task.mode, levels, SEED, num_threads=num_threads)
    try:
        player = _Listening(agent.policy, [env], action_seed(SEED, task.game, levels), [number] * STREAMS)
        for step, _ in zip(range(STEPS), player.play(), strict=False):
            report(Progress(step + 1, STEPS, "activations"))
    finally:
        env.close()
    features, hidden = torch.cat(player.features), torch.cat(player.hidden)
    numbers = (
        dormant_share(features),
        dormant_share(hidden),
        effective_rank(features),
        effective_rank(hidden),
        weight_norm(agent.policy),
    )
    return dict(zip(NUMBERS, numbers, strict=True))
