"""Run a policy on a batch of environments, one step at a time, with its recurrent state carried along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.losses import action_log_probs
from policies import Policy, PolicyOutput, State


@dataclass(frozen=True)
class ActionStep:
    """What a policy did with one frame of each of B environments, on the policy's device.

    Attributes:
        actions: (B,) int64.
        log_probs: log probability of each action, (B,).
        values: (B,).
        logits: (B, A).
    """

    actions: Tensor
    log_probs: Tensor
    values: Tensor
    logits: Tensor


def greedy(logits: Tensor) -> Tensor:
    """The most likely action of each row: (B, A) -> (B,)."""
    return logits.argmax(-1)


def sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One action of each row, drawn from softmax(logits): (B, A) -> (B,); any action where they are not numbers."""
    # Such logits are found where they are learned from. Here they would end a process with a GPU without a word.
    probabilities = logits.softmax(-1).nan_to_num(nan=1.0)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


class Actor:
    """A policy together with the recurrent states of `num_envs` environments."""

    def __init__(
        self, policy: Policy, num_envs: int, device: torch.device, generator: torch.Generator
    ) -> None:
        self.policy = policy
        self.device = device
        self._num_envs = num_envs
        self._generator = generator
        self.state: State = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything: the state before the first step of a stream."""
        self.state = self.policy.initial_state(self._num_envs, self.device)

    @torch.inference_mode(False)
    @torch.no_grad()
    def step(
        self,
        observation: Mapping[str, Any],
        episode_start: NDArray[np.bool_] | Tensor,
        deterministic: bool = False,
    ) -> ActionStep:
        """Choose an action for each environment and advance the state.

        Args:
            observation: "rgb" (B, H, W, C) uint8 and "reward" (B, 1) float32, arrays or tensors.
            episode_start: whether the observation is the first of an episode, (B,) bool.
            deterministic: the most likely action instead of a drawn one.
        """
        rgb = torch.as_tensor(observation["rgb"], device=self.device)
        reward = torch.as_tensor(observation["reward"], device=self.device)
        start = torch.as_tensor(episode_start, device=self.device)
        output = self._forward(rgb.unsqueeze(0), reward.unsqueeze(0), self.state, start.unsqueeze(0))
        self.state = output.state
        logits, values = output.logits.squeeze(0), output.value.squeeze(0)
        actions = greedy(logits) if deterministic else sample(logits, self._generator)
        return ActionStep(actions, action_log_probs(logits, actions), values, logits)

    def _forward(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        output: PolicyOutput = self.policy(rgb, reward, state, episode_start)
        return output
