"""The three strided convolutions of DQN (Mnih et al., Nature 518, 2015): fast, and slow to learn ProcGen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from common.config import Range
from policies.encoders.base import MAX_SIZE, Encoder, EncoderConfig, scaled_conv

_KERNELS_AND_STRIDES = ((8, 4), (4, 2), (3, 1))


@dataclass(frozen=True)
class NatureConfig(EncoderConfig):
    """Sizes of the encoder; the defaults are those of DQN, but for the width of the output (512 there).

    Attributes:
        channels: channels of the three convolutions.
    """

    channels: Annotated[tuple[int, ...], Range(1, MAX_SIZE)] = (32, 64, 64)

    def contradictions(self) -> list[str]:
        """What is wrong with the number of convolutions."""
        wanted = len(_KERNELS_AND_STRIDES)
        return (
            []
            if len(self.channels) == wanted
            else [f"encoder channels are {len(self.channels)} numbers: give {wanted}"]
        )


class NatureEncoder(Encoder):
    """Convolutions with kernels 8, 4, 3 and strides 4, 2, 1, each padded so that the border counts."""

    config_class = NatureConfig
    config: NatureConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        self.convolutions = nn.ModuleList()
        for (inputs, outputs), (kernel, stride) in zip(
            pairwise((channels, *self.config.channels)), _KERNELS_AND_STRIDES, strict=True
        ):
            padding = (kernel - stride + 1) // 2
            self.convolutions.append(nn.Conv2d(inputs, outputs, kernel, stride, padding))
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        return height, width, self.config.channels[-1]

    def feature_maps(self, pixels: Tensor) -> Tensor:
        first, *others = self.convolutions
        assert isinstance(first, nn.Conv2d)
        maps = scaled_conv(first, pixels)
        for convolution in others:
            maps = convolution(F.relu_(maps))
        return maps
