"""How far the first step of PPO's optimizer takes a fresh policy, by core and initial weights.

    python -m benchmarks.first_step [--quick] [--json FILE]

The divergence (nats) between a policy before and after one step of Adam, at PPO's learning rate, on the policy gradient
of 320 frames with random advantages; frames are of random play, the mean over seeds. Clipping a ratio at 0.2 bounds a
policy that changes everywhere alike to about 0.02.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from agents import PPOConfig
from benchmarks.figures import Figure, Part, main
from envs import IMAGE_SHAPE, NUM_ACTIONS, ProcgenVecEnv
from policies import CORES, Policy, PolicyOutput, policy_config
from policies.initial_weights import INITIAL_WEIGHTS

GAME, STEPS, ENVS, SEEDS = "fruitbot", 20, 16, 3
PLAIN = ("feedforward", "torch")


def parts(quick: bool = False) -> Sequence[Part]:
    """All cores, each with all kinds of initial weights."""
    return [Part("first step", partial(_measure, 1 if quick else SEEDS))]


def _measure(seeds: int) -> list[Figure]:
    frames = _frames()
    cases = [(core, weights) for core in CORES for weights in INITIAL_WEIGHTS]
    found = {case: [_first_step(*case, frames, seed) for seed in range(seeds)] for case in cases}
    divergence = {case: fmean(kl for kl, _ in each) for case, each in found.items()}
    return [
        Figure(
            f"{core}, initial weights {weights}",
            "the feed-forward network with torch's",
            divergence[core, weights] / divergence[PLAIN],
            facts={
                "nats": divergence[core, weights],
                "features (root mean square)": fmean(size for _, size in found[core, weights]),
            },
        )
        for core, weights in cases
    ]


def _frames() -> Tensor:
    """Frames of random play (T, B, H, W, C)."""
    env, random = ProcgenVecEnv(GAME, ENVS, num_threads=0), np.random.default_rng(0)
    try:
        env.reset()
        frames = []
        for actions in random.integers(NUM_ACTIONS, size=(STEPS, ENVS)):
            observation, *_ = env.step(actions)
            assert isinstance(observation, dict)
            frames.append(observation["rgb"])
        return torch.from_numpy(np.stack(frames))
    finally:
        env.close()


def _first_step(core: str, weights: str, frames: Tensor, seed: int) -> tuple[float, float]:
    """The divergence, and the root mean square of the encoder's features."""
    torch.manual_seed(seed)
    config = policy_config(core, encoder="space_to_depth", precision="float32", initial_weights=weights)
    policy = Policy(config, IMAGE_SHAPE, NUM_ACTIONS)
    reward, start = torch.zeros(STEPS, ENVS, 1), torch.zeros(STEPS, ENVS, dtype=torch.bool)
    state = policy.initial_state(ENVS)

    def log_probs() -> Tensor:
        output: PolicyOutput = policy(frames, reward, state, start)
        return output.logits.log_softmax(-1)

    before = log_probs()
    actions = torch.distributions.Categorical(logits=before.detach()).sample()
    gains = torch.randn(STEPS, ENVS) * before.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    (-gains.mean()).backward()
    torch.optim.Adam(policy.parameters(), PPOConfig().learning_rate, eps=PPOConfig().adam_eps).step()
    with torch.no_grad():
        divergence = (before.exp() * (before - log_probs())).sum(-1).mean()
        size = policy.features(frames, reward).square().mean().sqrt()
    return divergence.item(), size.item()


if __name__ == "__main__":
    sys.exit(main("The first step", parts))
