"""What a core does with its memory, and what reaches its parameters, while it is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.memory.tasks import Batch
from policies.cores.base import Core, Kind
from policies.cores.srwm import BLOCKS, SrwmLayer


def of_core(core: Core, batch: Batch) -> dict[str, float]:
    """What the core says about itself (`Core.examine`) while it runs over a batch, one step after the other.

    By tag, its mean over steps and streams; of rates, which a core that uses them moves, their standard deviation
    over steps and streams too ("layer0/rate_beta/spread"); of norms, what they are after the last step.
    """
    state, found = core.initial_state(batch.x.shape[1]), defaultdict[str, list[Tensor]](list)
    kinds: dict[str, Kind] = {}
    for x, start in zip(batch.x.split(1), batch.episode_start.split(1), strict=True):
        _, state, seen = core.examine(x, state, start)
        for reading in seen:
            found[reading.tag].append(reading.values)
            kinds[reading.tag] = reading.kind
    numbers: dict[str, float] = {}
    for tag, values in found.items():
        steps = torch.stack(values)
        numbers[tag] = float((steps[-1] if kinds[tag] is Kind.NORM else steps).mean())
        if kinds[tag] is Kind.RATE:
            numbers[f"{tag}/spread"] = float(steps.std(correction=0))
    return numbers


class GradientNorms:
    """Norms of the gradient by block of columns of each self-referential matrix, averaged over updates."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sums: dict[str, Tensor] = {}
        self._updates = 0

    def add(self) -> None:
        """Count the gradients that the parameters have now (after clipping)."""
        self._updates += 1
        for name, block in _gradient_blocks(self._core):
            self._sums[name] = self._sums.get(name, torch.zeros(())) + block.norm()

    def means(self) -> dict[str, float]:
        """By tag, "gradient/layer0/q", the mean over the updates since it was asked last."""
        found = {f"gradient/{name}": float(total) / self._updates for name, total in self._sums.items()}
        self._sums, self._updates = {}, 0
        return found


def _gradient_blocks(core: Core) -> Iterator[tuple[str, Tensor]]:
    """The gradient of each block of each matrix, "layer0/y"."""
    for number, layer in enumerate(getattr(core, "layers", ())):
        if isinstance(layer, SrwmLayer) and layer.w0.grad is not None:
            for name, block in zip(BLOCKS, layer.w0.grad.split(layer.block_sizes, dim=-1), strict=True):
                yield f"layer{number}/{name}", block
