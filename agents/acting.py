"""Run a policy on a batch of environments, one step at a time, with its recurrent state carried along."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.losses import action_log_probs
from policies import TASK, Policy, PolicyOutput, State

_WARM_UP = 3


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
        """Forget everything but the tasks: the state before the first step of a stream."""
        fresh = self.policy.initial_state(self._num_envs, self.device)
        self.state = {**fresh, **{name: tensor for name, tensor in self.state.items() if name == TASK}}

    def tell(self, tasks: Tensor) -> None:
        """From now on, the environments play these tasks (B,); only a policy that is told listens."""
        if TASK in self.state:
            self.state = {**self.state, TASK: tasks.to(self.device, torch.int64)}

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


class StepGraph:
    """Calls a policy for one step of a fixed number of streams on a GPU.

    The graph reads the parameters where they lie, so it follows an optimizer and `load_state_dict`; it must be made
    anew when parameters are replaced. Logits and values are overwritten by the next call, states are not.
    """

    def __init__(
        self, policy: Policy, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor
    ) -> None:
        """Record the graph; the arguments are those of the first call, as `Policy.forward` takes them.

        Raises:
            RuntimeError: the step cannot be recorded, since part of it waits for the device.
        """
        self._rgb, self._reward, self._start = rgb.clone(), reward.clone(), episode_start.clone()
        self._state = {name: tensor.clone() for name, tensor in state.items()}
        self._policy = policy
        stream = torch.cuda.Stream(rgb.device)
        stream.wait_stream(torch.cuda.current_stream(rgb.device))
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(_WARM_UP):  # kernels are chosen and compiled, which cannot be recorded
                self._step()
        torch.cuda.current_stream(rgb.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # The learner may be at work in another thread: what it does is not to be recorded, and not to be forbidden.
        with torch.no_grad(), torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._output = self._step()

    def _step(self) -> PolicyOutput:
        output: PolicyOutput = self._policy(self._rgb, self._reward, self._state, self._start)
        return output

    def __call__(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        """`policy(...)` of one step, for as many streams as the first call had."""
        self._rgb.copy_(rgb)
        self._reward.copy_(reward)
        self._start.copy_(episode_start)
        for name, tensor in state.items():
            self._state[name].copy_(tensor)
        self._graph.replay()
        output = self._output
        new_state = {name: tensor.clone() for name, tensor in output.state.items()}
        return PolicyOutput(output.logits, output.value, new_state)


class GraphActor(Actor):
    """An `Actor` on a GPU that steps its environments again and again, all of them at each step.

    Where the step cannot be recorded, it says so once and is an ordinary actor.
    """

    _recorded: StepGraph | Policy | None = None

    def _forward(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        if self._recorded is None:
            try:
                self._recorded = StepGraph(self.policy, rgb, reward, state, episode_start)
            except RuntimeError as error:
                warnings.warn(f"acting without a CUDA graph: {error}", RuntimeWarning, stacklevel=2)
                self._recorded = self.policy
        output: PolicyOutput = self._recorded(rgb, reward, state, episode_start)
        return output


def actor_class(device: torch.device) -> type[Actor]:
    """What acts fastest in training on `device`."""
    return GraphActor if device.type == "cuda" else Actor
