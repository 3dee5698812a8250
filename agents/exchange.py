"""What processes that train one policy together have to tell one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from agents.place import ALONE

Result = TypeVar("Result")


class Exchange:
    """The exchange of a process that trains alone: nothing to tell.

    Processes that share a run replace it by one whose calls are collective (`agents.distributed`): each of them makes
    the same calls in the same order.

    Attributes:
        place: which of the processes this is; `rank` is its number, and `size` how many there are.
    """

    place = ALONE
    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which of how many equal parts of the environments are this process's."""
        return self.rank, self.size

    def for_run(self, device: str, wait_minutes: float | None) -> Exchange:
        """The same processes, with tensors on `device`; a call fails after so many minutes of waiting (None: never)."""
        return self

    def for_acting(self) -> Exchange:
        """The same processes, for calls from a thread that plays while another one learns."""
        return self

    # Tensors

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place."""
        return tensor

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values of process 0, in place."""

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Give each parameter the sum of its gradients in all processes, in place.

        Processes must agree on which parameters have one.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        summed = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, values: Tensor, weights: Tensor) -> Tensor:
        """The mean of each row of `values` (n, k) over all processes, which count by their `weights` (n,)."""
        if self.size == 1:
            return values
        weights = weights.unsqueeze(1)
        summed = self.sum(torch.cat([values * weights, weights], 1))
        return summed[:, :-1] / summed[:, -1:]

    # Plain values

    def gather(self, value: Any) -> list[Any]:
        """The `value` of each process, in all of them: plain values, lists, dictionaries, arrays and tensors."""
        return [value]

    def gather_first(self, value: Any) -> list[Any] | None:
        """As `gather`, in process 0 alone; None in the others."""
        return self.gather(value)

    def total(self, number: float) -> float:
        """The sum of `number` over all processes."""
        return number if self.size == 1 else float(self.sum(torch.tensor(number, dtype=torch.float64)))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return self.total(float(flag)) > 0

    def agree_on(self, generator: torch.Generator) -> None:
        """Let the `generator` of all processes go on from the state of process 0's."""
        if self.size > 1:
            generator.set_state(self.gather(generator.get_state())[0])

    # Deeds

    def on_first(self, action: Callable[[], Result]) -> Result:
        """What `action` gives process 0, which alone does it, in all processes; its errors are everyone's."""
        return action()

    def together(self, action: Callable[[], Result]) -> Result:
        """What `action` gives this process; if it fails in any, all fail, and the first of these says why."""
        return action()

    def wait_for_all(self, value: Any, beat: Callable[[], None] = lambda: None) -> list[Any]:
        """As `gather`, where some processes may come hours before others; calls `beat` while waiting.

        Those that are not there yet show that they will be with `sign_of_life`.
        """
        return [value]

    def sign_of_life(self) -> None:
        """To be called now and then by who has more to do than others, which wait in `wait_for_all`."""
