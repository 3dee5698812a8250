"""Lists of tensors like a policy's parameters: copies, and how checkpoints hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

Tensors = list[Tensor]


class Weights:
    """Some of a module's parameters, in a fixed order.

    Attributes:
        names: of the parameters.
        parameters: themselves.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        pairs = list(named)
        self.names = [name for name, _ in pairs]
        self.parameters: Tensors = [parameter for _, parameter in pairs]

    def gradients(self) -> Tensors:
        """The gradient of each parameter, which is there afterwards: zero where nothing has added to it."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def values(self) -> Tensors:
        """Copies of the parameters."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def moved_from(self, others: Tensors) -> Tensors:
        """The parameters minus `others`, without gradient."""
        return list(torch._foreach_sub(self.parameters, others))

    def zeros(self) -> Tensors:
        """Zeros of the parameters' shapes."""
        return [torch.zeros_like(parameter) for parameter in self.parameters]

    def named(self, tensors: Tensors) -> dict[str, Tensor]:
        """As a checkpoint holds them."""
        return dict(zip(self.names, tensors, strict=True))

    def read(self, stored: Mapping[str, Tensor]) -> Tensors:
        """What `named` made, on the parameters' device and in their memory formats, so that sums add in one order.

        Raises:
            ValueError: they are of other parameters.
        """
        shapes = {name: parameter.shape for name, parameter in zip(self.names, self.parameters, strict=True)}
        if {name: tensor.shape for name, tensor in stored.items()} != shapes:
            raise ValueError("what a method of continual learning has stored is of another network")
        return [
            torch.empty_like(parameter).copy_(stored[name])
            for name, parameter in zip(self.names, self.parameters, strict=True)
        ]
