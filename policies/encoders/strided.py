"""A light encoder: a strided convolution and an early max-pool, then residual blocks on small maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from common.config import Range
from policies.encoders.base import MAX_SIZE, Encoder, SectionsConfig, scaled_conv
from policies.encoders.residual import make_sections


@dataclass(frozen=True)
class StridedConfig(SectionsConfig):
    """Sizes of the encoder with a strided stem.

    Attributes:
        stem: channels of the strided convolution.
        stride: of the stem, whose windows are twice as wide, less one pixel.
    """

    stem: Annotated[int, Range(1, MAX_SIZE)] = 16
    stride: Annotated[int, Range(1, 32)] = 2


class StridedEncoder(Encoder):
    """A strided convolution, then IMPALA's sections."""

    config_class = StridedConfig
    config: StridedConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        stride, stem = self.config.stride, self.config.stem
        self.stem = nn.Conv2d(channels, stem, kernel_size=2 * stride - 1, stride=stride, padding=stride - 1)
        self.sections, size = make_sections(self.config, -(-height // stride), -(-width // stride), stem)
        return size

    def feature_maps(self, pixels: Tensor) -> Tensor:
        maps = scaled_conv(self.stem, pixels)
        for section in self.sections:
            maps = section(maps)
        return maps
