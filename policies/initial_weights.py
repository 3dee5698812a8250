"""The weights that encoder and heads begin with; cores draw their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ACTOR_GAIN, CRITIC_GAIN = 0.01, 1.0


class InitialWeights:
    """Those that torch's layers draw when they are made."""

    def encoder(self, encoder: nn.Module) -> None:
        """Draw the weights of a fresh encoder."""

    def heads(self, actor: nn.Module, critic: nn.Module) -> None:
        """Draw the weights of fresh heads."""


class BaselinesWeights(InitialWeights):
    """Those of OpenAI's PPO on ProcGen (github.com/openai/baselines, `impala_cnn` and `fc`).

    The encoder's weights are Glorot and Bengio's (2010) uniform ones, those of the heads orthogonal with gains of 0.01
    for actions and 1 for values; biases are 0. So features begin ten times as large as with torch's defaults, all
    actions begin about as likely, and first steps of the optimizer hardly change how likely they are. Where a core has
    layer norms, which make small inputs large, torch's defaults let one step of Adam change them by more than PPO's
    clipping allows (docs/learning.md).
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
        for head, gain in ((actor, ACTOR_GAIN), (critic, CRITIC_GAIN)):
            for name, parameter in head.named_parameters():
                if name.endswith("weight"):
                    _draw_orthogonal(parameter, gain)
                else:
                    parameter.zero_()


def _draw_orthogonal(weight: Tensor, gain: float) -> None:
    """Each of the matrices (..., outputs, inputs): one, or one for each task."""
    for matrix in weight.reshape(-1, *weight.shape[-2:]):  # a view: parameters are contiguous
        nn.init.orthogonal_(matrix, gain)


INITIAL_WEIGHTS = {"torch": InitialWeights(), "baselines": BaselinesWeights()}
"""By the names that `PolicyConfig.initial_weights` takes."""
