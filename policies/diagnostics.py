"""What a core says about itself while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Kind(Enum):
    """What the numbers of a reading are, which decides how they are shown."""

    NORM = "norm"
    """Frobenius norms, from 0 upwards."""
    RATE = "rate"
    """Learning rates that the core generates for itself, from 0 to 1."""
    WRITTEN = "written"
    """Frobenius norms of what a single step has written."""


@dataclass(frozen=True)
class Reading:
    """One number for each environment, read off a core at one step.

    Attributes:
        layer: Index of the layer that it is about; None for the whole core.
        name: Name of the quantity, such as "shift_norm".
        kind: What the numbers are.
        values: The numbers (B,).
    """

    layer: int | None
    name: str
    kind: Kind
    values: Tensor

    @property
    def tag(self) -> str:
        """Its name in logs: "layer0/shift_norm"."""
        return self.name if self.layer is None else f"layer{self.layer}/{self.name}"
