"""One rollout of every environment, stored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies import TASK, State

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")


@dataclass(frozen=True)
class Batch:
    """Unrolls of T steps from B environments, as the learner takes them.

    Observation t led to action t, which led to reward t and, where `dones[t]`, ended the episode. Observations have
    one more step than actions: the last one is only for its value.

    Attributes:
        rgb: (T + 1, B, H, W, C) uint8.
        reward_input: the policy's reward input, (T + 1, B, 1).
        episode_start: whether observation t is the first of an episode, (T + 1, B) bool.
        actions: (T, B) int64.
        log_probs: of the actions when they were chosen, (T, B).
        values: when the actions were chosen, (T, B).
        rewards: the learner's (transformed) rewards, (T, B).
        dones: (T, B) bool.
        initial_state: the policy's state before the first observation, batch first.
        final_state: the policy's state before the last observation, batch first.
        logits: what the actions were drawn from, (T, B, A), where they are known.
        targets: what methods of continual learning have to say about each step, (T, B, ...), where they have.
        states: the policy's states where the S shorter unrolls begin that these are to be cut into, (B, S, ...);
            nothing where they are not.
    """

    rgb: Tensor
    reward_input: Tensor
    episode_start: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    dones: Tensor
    initial_state: State
    final_state: State
    logits: Tensor | None = None
    targets: Tensor | None = None
    states: State = field(default_factory=dict)

    def select(self, envs: Tensor) -> Batch:
        """The unrolls of the environments `envs` (n,), in that order."""
        return select(self, envs)

    def in_unrolls(self, count: int) -> Batch:
        """The same steps as shorter unrolls of T / S steps, S (`count`) for each environment; itself where S is 1.

        Those that begin together are side by side: number s * B + b is the s-th of environment b.
        """
        if count == 1:
            return self
        ends = {
            name: torch.cat([states[:, 1:], self.final_state[name].unsqueeze(1)], dim=1)
            for name, states in self.states.items()
        }
        cut = in_unrolls(replace(self, states={}), self.states, len(self.actions), count)
        return replace(cut, final_state=_in_unrolls(ends))


@dataclass(frozen=True)
class Sequences:
    """Unrolls as a learner takes them that has made its estimates: as `Batch`, without the last observation.

    All tensors are (T, B, ...) except the state, which is batch first.

    Attributes:
        values: when the actions were chosen.
        advantages: how much better the actions were than expected.
        returns: what values are fitted to.
    """

    rgb: Tensor
    reward_input: Tensor
    episode_start: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    initial_state: State
    targets: Tensor | None = None

    @classmethod
    def of(cls, rollout: Batch, values: Tensor, advantages: Tensor, returns: Tensor) -> Sequences:
        """The steps of `rollout` with these estimates, each (T, B)."""
        return cls(
            rgb=rollout.rgb[:-1],
            reward_input=rollout.reward_input[:-1],
            episode_start=rollout.episode_start[:-1],
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            values=values,
            advantages=advantages,
            returns=returns,
            initial_state=rollout.initial_state,
            targets=rollout.targets,
        )

    def in_unrolls(self, states: State, count: int) -> Sequences:
        """The same steps as shorter unrolls, `count` for each environment, which begin with `states` (B, count, ...);
        in the order of `Batch.in_unrolls`."""
        return in_unrolls(self, states, len(self.actions), count)

    def select(self, columns: Tensor) -> Sequences:
        """The sequences with these numbers (n,)."""
        return select(self, columns)

    def one_step_each(self) -> Sequences:
        """Every step as a sequence of its own, for a policy without memory: (T, B, ...) -> (1, T * B, ...)."""
        if not self.initial_state.keys() <= {TASK}:
            raise ValueError("steps of a policy with memory cannot be taken out of their sequence")
        steps = len(self.actions)
        return map_tensors(self, lambda x: x.flatten(0, 1).unsqueeze(0), lambda task: task.repeat(steps))


def select(record: Record, envs: Tensor) -> Record:
    """A record of (T, B, ...) tensors and batch-first states, cut down to `envs` (n,) of B, in that order."""
    return map_tensors(record, lambda x: x.index_select(1, envs), lambda x: x.index_select(0, envs))


def in_unrolls(record: Record, states: State, steps: int, count: int) -> Record:
    """A record of `steps` steps in S (`count`) unrolls for each environment, which begin with `states` (B, S, ...).

    They come as in `Batch.in_unrolls`. Of tensors with one entry more than there are steps, the entry where an unroll
    ends is also where the next one begins.
    """
    length = steps // count

    def cut(x: Tensor) -> Tensor:
        more = len(x) - steps
        return torch.cat([x[start : start + length + more] for start in range(0, steps, length)], dim=1)

    changed = map_tensors(record, cut, lambda x: x)
    return replace(changed, initial_state=_in_unrolls(states))


def _in_unrolls(states: State) -> State:
    """States of S unrolls of each environment, (B, S, ...), as a batch (S * B, ...)."""
    return {name: tensor.transpose(0, 1).flatten(0, 1) for name, tensor in states.items()}


def map_tensors(
    record: Record, sequence: Callable[[Tensor], Tensor], state: Callable[[Tensor], Tensor]
) -> Record:
    """A record with `sequence` applied to each of its tensors and `state` to each tensor of its states."""

    def changed(value: Tensor | State | None) -> Tensor | State | None:
        if value is None:
            return None
        if isinstance(value, dict):
            return {name: state(tensor) for name, tensor in value.items()}
        return sequence(value)

    return replace(record, **{item.name: changed(getattr(record, item.name)) for item in fields(record)})


class RolloutStore:
    """Memory for one rollout, allocated once and filled again and again."""

    def __init__(
        self,
        steps: int,
        num_envs: int,
        image_shape: tuple[int, ...],
        num_actions: int,
        device: torch.device,
        unroll_steps: int | None = None,
    ) -> None:
        """Room for `steps` of `num_envs` environments with images of `image_shape` (H, W, C).

        `unroll_steps` is the length of the unrolls that they are to be cut into; None: they stay whole.
        """

        def zeros(length: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(length, num_envs, *shape, dtype=dtype, device=device)

        self.steps = steps
        self._unroll_steps = unroll_steps or steps
        self._states: State = {}
        self.batch = Batch(
            rgb=zeros(steps + 1, *image_shape, dtype=torch.uint8),
            reward_input=zeros(steps + 1, 1),
            episode_start=zeros(steps + 1, dtype=torch.bool),
            actions=zeros(steps, dtype=torch.int64),
            log_probs=zeros(steps),
            values=zeros(steps),
            rewards=zeros(steps),
            dones=zeros(steps, dtype=torch.bool),
            initial_state={},
            final_state={},
            logits=zeros(steps, num_actions),
        )
        # What environments return is gathered on the host: on a GPU, a copy at each step would wait each time.
        pin = device.type == "cuda"
        self._rewards = torch.zeros(steps, num_envs, pin_memory=pin)
        self._dones = torch.zeros(steps, num_envs, dtype=torch.bool, pin_memory=pin)

    def put_observation(
        self, t: int, envs: slice, rgb: Tensor, reward_input: Tensor, episode_start: Tensor
    ) -> None:
        """Store observation `t` of T + 1 of the environments `envs`; pinned tensors are copied without waiting."""
        self.batch.rgb[t, envs].copy_(rgb, non_blocking=True)
        self.batch.reward_input[t, envs].copy_(reward_input, non_blocking=True)
        self.batch.episode_start[t, envs].copy_(episode_start, non_blocking=True)

    def observation(self, t: int, envs: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Observation `t` of `envs` and its episode starts, as `Actor.step` takes them."""
        batch = self.batch
        seen = {"rgb": batch.rgb[t, envs], "reward": batch.reward_input[t, envs]}
        return seen, batch.episode_start[t, envs]

    def put_state(self, t: int, envs: slice, state: State) -> None:
        """Store the policy's state of `envs` before observation `t`, if an unroll begins there."""
        if self._unroll_steps == self.steps or t % self._unroll_steps:
            return
        unrolls = self.steps // self._unroll_steps
        for name, tensor in state.items():
            if name not in self._states:
                all_envs = self.batch.actions.shape[1]
                self._states[name] = tensor.new_zeros(all_envs, unrolls, *tensor.shape[1:])
            self._states[name][envs, t // self._unroll_steps] = tensor

    def put_action(
        self, t: int, envs: slice, actions: Tensor, log_probs: Tensor, values: Tensor, logits: Tensor
    ) -> None:
        """Store action `t` of T of the environments `envs`."""
        self.batch.actions[t, envs].copy_(actions)
        self.batch.log_probs[t, envs].copy_(log_probs)
        self.batch.values[t, envs].copy_(values)
        assert self.batch.logits is not None
        self.batch.logits[t, envs].copy_(logits)

    @property
    def rewards(self) -> NDArray[np.float32]:
        """What is in the batch once `complete` was called, (T, B); to be written into."""
        return self._rewards.numpy()

    @property
    def dones(self) -> NDArray[np.bool_]:
        """As `rewards`, whether each step ended an episode, (T, B)."""
        return self._dones.numpy()

    def complete(self, initial_state: State, final_state: State) -> None:
        """Finish a rollout. The states around it are kept by reference: cores return new tensors at each step."""
        self.batch.rewards.copy_(self._rewards)
        self.batch.dones.copy_(self._dones)
        self.batch = replace(
            self.batch, initial_state=initial_state, final_state=final_state, states=self._states
        )
