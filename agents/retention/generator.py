"""A generator of sequences of frames, or of what a core is given for them: a variational autoencoder in time.

As in brain-inspired replay (van de Ven et al. 2020, Nat. Commun. 11:4069), with a chain through time for policies that
remember: the latent z at an episode's start comes from a normal distribution of its task, each later one from the one
before it. For a policy without memory every step is a start, which is the published model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

LATENT, HIDDEN, TRANSITION = 100, 400, 256


@dataclass(frozen=True)
class GeneratorSizes:
    """What a generator is for.

    Attributes:
        data: numbers of a step; the last one is the reward.
        seen: numbers of what the latents are read from.
        modes: number of tasks.
        image: whether the data are pixels, from 0 to 1, rather than features, from 0 up.
        conditional: whether latents begin and move in another way in each task.
        gated_share: share of the decoder's hidden units that is silent in each task.
        gate_seed: of the choice of units.
    """

    data: int
    seen: int
    modes: int
    image: bool
    conditional: bool
    gated_share: float
    gate_seed: int


class Posterior(NamedTuple):
    """Normal distributions (T, B, Z) by mean and log variance, and a draw from each."""

    mean: Tensor
    log_variance: Tensor
    z: Tensor


class Generator(nn.Module):
    """Encodes what was seen, and decodes data from latents."""

    masks: Tensor

    def __init__(self, sizes: GeneratorSizes) -> None:
        super().__init__()
        self.sizes = sizes
        modes = sizes.modes if sizes.conditional else 1
        self.read = nn.Sequential(nn.Linear(sizes.seen, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.start = nn.Parameter(torch.zeros(modes, 2 * LATENT))
        self.transition_variance = nn.Parameter(torch.zeros(modes, LATENT))
        self.mode = nn.Parameter(torch.zeros(modes, LATENT))
        self.move = nn.Sequential(
            nn.Linear(LATENT, TRANSITION), nn.ReLU(), nn.Linear(TRANSITION, LATENT, bias=False)
        )
        self.decode1, self.decode2 = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.decode3 = nn.Linear(HIDDEN, sizes.data)
        random = np.random.default_rng(np.random.SeedSequence(sizes.gate_seed))
        masks = random.random((2, sizes.modes, HIDDEN)).argsort(-1) >= round(sizes.gated_share * HIDDEN)
        self.register_buffer("masks", torch.from_numpy(masks))

    def _modes(self, tasks: Tensor) -> Tensor:
        return tasks % self.sizes.modes if self.sizes.conditional else torch.zeros_like(tasks)

    def encode(self, seen: Tensor, generator: torch.Generator) -> Posterior:
        """Latents of what was seen (T, B, seen); `generator` is on the CPU."""
        mean, log_variance = self.read(seen).chunk(2, -1)
        log_variance = log_variance.clamp(-10.0, 10.0)
        return Posterior(mean, log_variance, mean + (0.5 * log_variance).exp() * normal(mean, generator))

    def moved(self, z: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents that follow `z` (..., B, Z)."""
        modes = self._modes(tasks)
        return z + self.move(z + self.mode[modes]), self.transition_variance[modes].expand_as(z)

    def decode(self, z: Tensor, tasks: Tensor) -> Tensor:
        """Data (T, B, data) of latents (T, B, Z): features or pixels, and the reward."""
        first, second = self.masks[:, tasks % self.sizes.modes].to(z.dtype)
        hidden = self.decode2(self.decode1(z).relu() * first).relu() * second
        raw = self.decode3(hidden)
        body, reward = raw[..., :-1], raw[..., -1:]
        return torch.cat([body.sigmoid() if self.sizes.image else body.relu(), reward.tanh()], -1)

    def losses(
        self, data: Tensor, seen: Tensor, starts: Tensor, tasks: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Squared error and divergence from the prior of each step (T, B), both divided by the size of the data.

        A step in the middle of an episode whose predecessor is not among the data has no prior.

        Args:
            data: what is to be generated (T, B, data).
            seen: what latents are read from (T, B, seen).
            starts: whether a step is the first of an episode (T, B).
            tasks: of each sequence (B,).
            generator: of what is drawn, on the CPU.
        """
        found = self.encode(seen, generator)
        error = (self.decode(found.z, tasks) - data).square().sum(-1)
        begun_mean, begun_log_variance = self.start[self._modes(tasks)].chunk(2, -1)
        begun = divergence(found, begun_mean.expand_as(found.mean), begun_log_variance.expand_as(found.mean))
        mean, log_variance = self.moved(found.z[:-1], tasks)
        later = divergence(Posterior(*(part[1:] for part in found)), mean, log_variance)
        going_on = torch.cat([torch.zeros_like(begun[:1]), later])
        return error / data.shape[-1], torch.where(starts, begun, going_on) / data.shape[-1]

    @torch.no_grad()
    def generate(self, tasks: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Sequences (T, B, data) that begin with an episode, of these tasks (B,)."""
        mean, log_variance = self.start[self._modes(tasks)].chunk(2, -1)
        latents = []
        for _ in range(steps):
            latents.append(mean + (0.5 * log_variance).exp() * normal(mean, generator))
            mean, log_variance = self.moved(latents[-1], tasks)
        return self.decode(torch.stack(latents), tasks)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from N(0, 1), shaped as `like`; the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device, like.dtype)


def divergence(one: Posterior, mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(one || N(mean, exp(log_variance))), summed over the last dimension."""
    ratio = (one.log_variance - log_variance).exp()
    away = (one.mean - mean).square() * (-log_variance).exp()
    return 0.5 * (ratio + away - 1.0 - one.log_variance + log_variance).sum(-1)
