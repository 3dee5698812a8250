"""What decides one cell of a table: a task, a core, how it is trained, a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import nn

from agents import ImpalaConfig
from common.config import OneOf, Option, Range, choice, options
from common.errors import UserError
from experiments.memory.tasks import TASKS
from policies.cores.base import CoreConfig
from policies.cores.srwm import SrwmConfig
from policies.registry import CORES, core_configs, name_of
from policies.resets import MAX_SPAN, parse_reset

_PAPER = ImpalaConfig()
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class _Optimizer:
    """An optimiser and the learning rate that it has unless told."""

    learning_rate: float
    make: Callable[..., torch.optim.Optimizer]


def _rmsprop(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr, alpha=_PAPER.rmsprop_alpha, eps=_PAPER.rmsprop_eps)


OPTIMIZERS = {
    "adam": _Optimizer(1e-3, torch.optim.Adam),
    "rmsprop": _Optimizer(_PAPER.learning_rate, _rmsprop),
}
"""By name; `rmsprop` is that of the SRWM paper's reinforcement learning, with its large epsilon."""


@dataclass(frozen=True)
class Cell:
    """One core trained on one memory task.

    Attributes:
        task: what is asked (docs/memory.md).
        core: recurrent core; its settings are the options core.*
        match: core of this name whose number of parameters, at its default sizes, this one gets: its feed-forward
            blocks, or an LSTM's cells, become as wide as that takes; none for the sizes as they are.
        optimizer: adam, or rmsprop as in the paper, with its epsilon of 0.01.
        learning_rate: none for 1e-3 with adam and 6e-4 with rmsprop.
        updates: gradient steps at most, each on a new batch.
        stop_at: accuracy over fifty updates at which training ends early; none to make all updates.
        streams: sequences in a batch; the loss is their sum, as in the paper.
        max_grad_norm: gradients are scaled down to this norm.
        reset: when the core forgets: episode, never, or a number of steps such as 5.
        bptt_span: steps that gradient flows through; none for the whole sequence.
        seed: of weights and batches; the batches are the same for every core.
    """

    task: Annotated[str, OneOf(TASKS)] = "cue-15"
    core: CoreConfig = choice(core_configs, SrwmConfig, option="policy")
    match: Annotated[str | None, OneOf(CORES)] = None
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adam"
    learning_rate: Annotated[float | None, Range(0, open_low=True)] = None
    updates: Annotated[int, Range(1, 10**7)] = 300
    stop_at: Annotated[float | None, Range(0, 1)] = None
    streams: Annotated[int, Range(1, 10**5)] = 32
    max_grad_norm: Annotated[float, Range(0, open_low=True)] = _PAPER.max_grad_norm
    reset: str = "episode"
    bptt_span: Annotated[int | None, Range(1, MAX_SPAN)] = None
    seed: Annotated[int, Range(0, MAX_SEED)] = 0

    @property
    def policy(self) -> str:
        """The name of its core."""
        return name_of(self.core)

    def contradictions(self) -> list[str]:
        """What is wrong with the reset rule."""
        try:
            parse_reset(self.reset)
        except UserError as error:
            return [str(error)]
        return []

    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimiser of `parameters`, a list of them or of groups."""
        chosen = OPTIMIZERS[self.optimizer]
        return chosen.make(parameters, lr=self.learning_rate or chosen.learning_rate)


def every_setting() -> dict[str, Option]:
    """The settings of a cell, with whatever core, by dotted name."""
    cells = (replace(Cell(), core=config()) for config in core_configs().values())
    return {option.name: option for cell in cells for option in options(cell)}
