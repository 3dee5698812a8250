"""Which of several tasks a policy plays: who knows it, and what of the network belongs to one task alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import OneOf, Range

TASK = "task"
"""State entry of a policy that is told its task: its number, int64 (B,)."""

HIDDEN, TOLD = "hidden", "told"
SHARED, PER_TASK, BLOCKS = "shared", "per-task", "blocks"
MAX_TASKS = 1000


@dataclass(frozen=True)
class TaskConfig:
    """What a policy knows of its tasks.

    Attributes:
        count: how many tasks there are.
        id: whether the policy is told which one it plays (told), or has to see it in the images (hidden).
        heads: shared: one set of actions and one value for all tasks; per-task: a set for each, for a policy that is
            told; blocks: a set for each task seen so far, all of them open at any time.
        cores: shared: one core for all tasks; per-task: one for each, for a policy that is told. The encoder is shared.
        gated_share: share of hidden units that is silent in each task, other ones in each; for a policy that is told.
        gated_apart: let no unit speak in two tasks.
        gate_seed: of the choice of units.
    """

    count: Annotated[int, Range(1, MAX_TASKS)] = 1
    id: Annotated[str, OneOf((HIDDEN, TOLD))] = HIDDEN
    heads: Annotated[str, OneOf((SHARED, PER_TASK, BLOCKS))] = SHARED
    cores: Annotated[str, OneOf((SHARED, PER_TASK))] = SHARED
    gated_share: Annotated[float, Range(0, 1, open_high=True)] = 0.0
    gated_apart: bool = False
    gate_seed: Annotated[int, Range(0)] = 0

    def contradictions(self) -> list[str]:
        """What does not go together."""
        found = []
        if self.id == HIDDEN and self.heads == PER_TASK:
            found.append("tasks.heads per-task are chosen by the task: use tasks.id told")
        if self.id == HIDDEN and self.cores == PER_TASK:
            found.append("tasks.cores per-task are chosen by the task: use tasks.id told")
        if self.id == HIDDEN and self.gated_share > 0.0:
            found.append("tasks.gated_share chooses units by the task: use tasks.id told")
        if self.gated_apart and self.count * (1.0 - self.gated_share) > 1.0 + 1e-9:
            found.append(
                f"tasks.gated_apart: {self.count} tasks cannot have {1 - self.gated_share:.0%} of all units each: "
                f"use a gated_share of {1 - 1 / self.count:.3f} or more"
            )
        return found

    @property
    def told(self) -> bool:
        """Whether the policy is told its task."""
        return self.id == TOLD


# Heads


class TaskLinear(nn.Module):
    """A linear map of its own for each task: weights (K, outputs, inputs), biases (K, outputs)."""

    def __init__(self, tasks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        parts = [nn.Linear(inputs, outputs) for _ in range(tasks)]
        self.weight = nn.Parameter(torch.stack([part.weight.detach() for part in parts]))
        self.bias = nn.Parameter(torch.stack([part.bias.detach() for part in parts]))

    def all(self, x: Tensor) -> Tensor:
        """The outputs of all maps: (..., inputs) -> (..., K, outputs)."""
        flat = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        every: Tensor = flat.unflatten(-1, self.bias.shape)
        return every

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """The outputs (T, B, outputs) of the map of each stream's task (B,) for x (T, B, inputs)."""
        every = self.all(x)
        chosen = task.reshape(1, -1, 1, 1).expand(*every.shape[:2], 1, every.shape[-1])
        return every.gather(2, chosen).squeeze(2)


class SharedLinear(nn.Linear):
    """One linear map, whatever the task."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Blocks(nn.Module):
    """A block of outputs for each task, of which those of tasks seen so far compete in one softmax.

    An output says which action is taken; which block it is in does not matter to the environment. So the logit of an
    action is the log of the sum over blocks of the exponentials of its outputs.
    """

    seen: Tensor

    def __init__(self, tasks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = TaskLinear(tasks, inputs, outputs)
        self.register_buffer("seen", torch.arange(tasks) < 1)

    @property
    def weight(self) -> Tensor:
        """Those of all blocks."""
        return self.linear.weight

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        blocks = self.linear.all(x)
        return blocks.masked_fill(~self.seen.unsqueeze(-1), -torch.inf).logsumexp(-2)


def make_heads(config: TaskConfig, inputs: int, actions: int) -> tuple[nn.Module, nn.Module]:
    """The heads for the logits of actions and for the value, called with (x, task)."""
    if config.heads == PER_TASK:
        return TaskLinear(config.count, inputs, actions), TaskLinear(config.count, inputs, 1)
    if config.heads == BLOCKS:
        return Blocks(config.count, inputs, actions), SharedLinear(inputs, 1)
    return SharedLinear(inputs, actions), SharedLinear(inputs, 1)


# Gates


class Gate(nn.Module):
    """Silences units by the task that is played (Masse et al. 2018, arXiv 1802.01569); open unless it has masks.

    Attributes:
        size: number of units.
    """

    masks: Tensor | None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("masks", None)
        self._chosen: Tensor | None = None

    def choose(self, task: Tensor) -> None:
        """From now on, streams play these tasks (B,)."""
        if self.masks is not None:
            self._chosen = self.masks[task]

    def forward(self, x: Tensor) -> Tensor:
        """The units x (T, B, size), some of them silent."""
        return x if self._chosen is None else x * self._chosen.to(x.dtype)


def close_gates(module: nn.Module, config: TaskConfig) -> list[Gate]:
    """Give all gates in `module` masks, drawn layer by layer; returns them."""
    gates = [part for part in module.modules() if isinstance(part, Gate)]
    if config.gated_share > 0.0:
        for layer, gate in enumerate(gates):
            gate.masks = torch.from_numpy(draw_masks(config, gate.size, layer))
    return gates


def draw_masks(config: TaskConfig, size: int, layer: int) -> NDArray[np.bool_]:
    """Which of `size` units speak in each task, (K, size) bool: in each as many, round((1 - share) size)."""
    random = np.random.default_rng(np.random.SeedSequence((config.gate_seed, layer)))
    open_units = round((1.0 - config.gated_share) * size)
    masks = np.zeros((config.count, size), dtype=bool)
    order = random.permutation(size)
    for task in range(config.count):
        if config.gated_apart:
            # As many as there are for all, where rounding up would be more than that.
            each = min(open_units, size // config.count)
            chosen = order[task * each : (task + 1) * each]
        else:
            chosen = random.permutation(size)[:open_units]
        masks[task, chosen] = True
    return masks
