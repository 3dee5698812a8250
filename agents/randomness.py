"""Independent streams of random numbers, so that none disturbs another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class RandomStreams:
    """One generator for each purpose: what an evaluation draws must not change what training draws.

    Attributes:
        acting: actions in training, on the policy's device.
        predicting: actions in `predict`, on the policy's device.
        shuffling: the order of minibatches, on the CPU.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        """`seed` None draws one."""
        seeds = np.random.SeedSequence(seed).spawn(3)
        acting, predicting, shuffling = (int(s.generate_state(1, np.uint64)[0]) >> 1 for s in seeds)
        self.acting = torch.Generator(device).manual_seed(acting)
        self.predicting = torch.Generator(device).manual_seed(predicting)
        self.shuffling = torch.Generator().manual_seed(shuffling)

    def state(self) -> dict[str, Tensor]:
        """The states of all generators and of torch's global one, for a checkpoint."""
        return {**{name: g.get_state() for name, g in self._generators()}, "global": torch.get_rng_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; generators of another kind of device keep their own."""
        torch.set_rng_state(state["global"])
        for name, generator in self._generators():
            if generator.get_state().shape == state[name].shape:
                generator.set_state(state[name])

    def _generators(self) -> list[tuple[str, torch.Generator]]:
        return list(vars(self).items())
