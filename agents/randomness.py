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
        shuffling: the order of batches, on the CPU; its state belongs to the learner.
        replaying: what methods of continual learning draw, on the CPU; its state belongs to the learner.
    """

    def __init__(self, seed: int | None, device: torch.device, rank: int = 0) -> None:
        """`seed` None draws one; processes that share a run draw actions of their own, by their `rank`."""
        seeds = np.random.SeedSequence(seed).spawn(4)
        if rank:
            seeds[:2] = np.random.SeedSequence(seed, spawn_key=(len(seeds), rank)).spawn(2)
        acting, predicting, shuffling, replaying = (
            int(s.generate_state(1, np.uint64)[0]) >> 1 for s in seeds
        )
        self.acting = torch.Generator(device).manual_seed(acting)
        self.predicting = torch.Generator(device).manual_seed(predicting)
        self.shuffling = torch.Generator().manual_seed(shuffling)
        self.replaying = torch.Generator().manual_seed(replaying)

    def state(self) -> dict[str, Tensor]:
        """The states of the generators of actions and of torch's global one, for a checkpoint."""
        return {
            "acting": self.acting.get_state(),
            "predicting": self.predicting.get_state(),
            "global": torch.get_rng_state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; generators of another kind of device keep their own."""
        torch.set_rng_state(state["global"])
        for generator, stored in ((self.acting, state["acting"]), (self.predicting, state["predicting"])):
            if generator.get_state().shape == stored.shape:
                generator.set_state(stored)
