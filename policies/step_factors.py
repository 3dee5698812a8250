"""Learning rates of their own for parts of a network, whatever the optimizer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Factored(Protocol):
    """A core or a policy."""

    def step_factors(self) -> dict[str, Tensor]: ...

    def get_parameter(self, target: str) -> nn.Parameter: ...


def scale_steps(optimizer: torch.optim.Optimizer, network: Factored) -> None:
    """Make each step of `optimizer` change a parameter by its factor (`step_factors`) times what it would have.

    For an optimizer whose steps are in proportion to the learning rate (SGD, RMSProp, Adam without weight decay) a
    factor is one of the learning rate, exactly, and for single columns too. What the optimizer remembers, the order of
    its parameters and what it saves stay as they are; where there is no factor, nothing is done at all.
    """
    names = list(network.step_factors())
    if not names:
        return
    before: dict[str, Tensor] = {}

    def remember(*_: object) -> None:
        before.update({name: network.get_parameter(name).detach().clone() for name in names})

    @torch.no_grad()
    def rescale(*_: object) -> None:
        for name, factor in network.step_factors().items():
            parameter = network.get_parameter(name)
            parameter.copy_(before[name] + factor * (parameter - before[name]))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(rescale)
