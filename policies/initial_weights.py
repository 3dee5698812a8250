"""The weights that a policy begins with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.cores.base import Core

HEAD_GAIN = 0.1


class InitialWeights:
    """Those that torch's layers draw when they are made; a core's matrices are drawn as published."""

    def encoder(self, encoder: nn.Module) -> None:
        """Draw the weights of a fresh encoder."""

    def core(self, core: Core) -> None:
        """Draw the weights of a fresh core."""

    def heads(self, actor: nn.Module, critic: nn.Module) -> None:
        """Draw the weights of fresh heads."""


class SmallHeads(InitialWeights):
    """All actions begin about as likely, and first steps of the optimizer hardly change how likely they are.

    The encoder's weights are Glorot and Bengio's (2010) uniform ones, so that features begin ten times as large as with
    torch's defaults; those of the heads are orthogonal with a small gain; biases are 0. Where a core has layer norms,
    which make small inputs large, torch's defaults let one step of Adam change probabilities by more than PPO's
    clipping allows (docs/learning.md). OpenAI's PPO on ProcGen (github.com/openai/baselines) begins alike, but with
    gains of 0.01 for actions and 1 for the value, so that at first it is the value alone that shapes the features.
    """

    @torch.no_grad()
    def encoder(self, encoder: nn.Module) -> None:
        for name, parameter in encoder.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                parameter.zero_()

    @torch.no_grad()
    def heads(self, actor: nn.Module, critic: nn.Module) -> None:
        for head in (actor, critic):
            for name, parameter in head.named_parameters():
                if name.endswith("weight"):
                    for matrix in _matrices(parameter):
                        nn.init.orthogonal_(matrix, HEAD_GAIN)
                else:
                    parameter.zero_()


class QuietLayers(SmallHeads):
    """As `SmallHeads`, and layers of the core begin by adding nothing to what they are given.

    So a layered core begins as a linear map, which hides nothing of the encoder from the heads, and finds out what its
    layers are good for; those of an SRWM would otherwise begin by adding more than what they are given, other in each
    step since its matrix changes. Residual branches that begin at zero are Bachlechner et al.'s (ReZero, 2021) and De
    and Smith's (SkipInit, 2020); that memory learns faster in RL behind such an identity is found by Parisotto et al.
    (GTrXL, 2020).
    """

    def core(self, core: Core) -> None:
        core.quieten()


def _matrices(weight: Tensor) -> Tensor:
    """Views of the matrices (outputs, inputs) of a head: one, or one for each task."""
    return weight.view(-1, *weight.shape[-2:])


INITIAL_WEIGHTS = {"torch": InitialWeights(), "small-heads": SmallHeads(), "quiet-layers": QuietLayers()}
"""By the names that `PolicyConfig.initial_weights` takes."""
