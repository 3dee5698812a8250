"""SRWM that addresses its rows sharply: the configuration recommended outside the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass

from policies.cores.srwm import SrwmConfig, SrwmCore


@dataclass(frozen=True)
class SrwmSharpConfig(SrwmConfig):
    """Sizes and options of SRWM; by default with layer norm, without softmax of the input, q and k sharpened by 4.

    As published, a layer's softmax of its small inputs is almost uniform: every step reads nearly the mean row of the
    matrix, whatever the input, and the columns that decide about writing get hardly any gradient.
    """

    layer_norm: bool = True
    input_softmax: bool = False
    sharpness: float = 4.0
    unit_key: bool = True


class SrwmSharpCore(SrwmCore):
    """Linear map to the width, then layers of (SRWM, feed-forward block)."""

    config_class = SrwmSharpConfig
