"""One step of a policy as a CUDA graph: the whole step is launched at once instead of kernel by kernel."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from agents.acting import Actor
from policies import Policy, PolicyOutput, State

_WARM_UP = 3


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
        logits, value, new_state = self._output
        return PolicyOutput(logits, value, {name: tensor.clone() for name, tensor in new_state.items()})


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
