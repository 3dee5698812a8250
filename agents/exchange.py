"""What processes that train one policy together have to tell one another."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Exchange:
    """The exchange of a process that trains alone: nothing to tell.

    Processes that share a run replace it by one whose calls are collective: each of them makes the same calls in the
    same order.
    """

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Give each parameter the sum of its gradients in all processes, in place."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return flag
