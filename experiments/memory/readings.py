"""What a core does with its memory, and what reaches its parameters, while it is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.memory.tasks import Batch
from policies.cores.base import Core, Kind, Reading


def of_core(core: Core, batch: Batch) -> dict[str, float]:
    """What the core says about itself (`Core.examine`) while it runs over a batch, one step after the other.

    By tag: norms as they are after the last step, everything else as the mean over steps; the mean over streams of
    both. Of rates, which move where a core uses them, the standard deviation over steps too, head by head, and its mean
    over heads and streams ("layer0/rate_beta_spread", as in training logs).
    """
    state, found = core.initial_state(batch.x.shape[1]), defaultdict[str, list[Reading]](list)
    for x, start in zip(batch.x.split(1), batch.episode_start.split(1), strict=True):
        _, state, seen = core.examine(x, state, start)
        for reading in seen:
            found[reading.tag].append(reading)
    numbers: dict[str, float] = {}
    for tag, steps in found.items():
        values = torch.stack([reading.values for reading in steps])
        numbers[tag] = float((values[-1] if steps[0].kind is Kind.NORM else values).mean())
        if steps[0].kind is Kind.RATE:
            numbers[f"{tag}_spread"] = _spread(steps)
    return numbers


def _spread(steps: Sequence[Reading]) -> float:
    heads = [reading.values if reading.heads is None else reading.heads for reading in steps]
    return float(torch.stack(heads).std(dim=0, correction=0).mean())


class GradientNorms:
    """Norms of the gradient by block of weights (`Core.gradient_blocks`), averaged over updates."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sums: dict[str, Tensor] = {}
        self._updates = 0

    def add(self) -> None:
        """Count the gradients that the parameters have now (after clipping)."""
        self._updates += 1
        for name, block in self._core.gradient_blocks().items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + block.norm()

    def means(self) -> dict[str, float]:
        """By tag, "gradient/layer0/q", the mean over the updates since it was asked last."""
        found = {f"gradient/{name}": float(total) / self._updates for name, total in self._sums.items()}
        self._sums, self._updates = {}, 0
        return found
