"""A light encoder: one convolution at full resolution, pooled, then residual blocks on small maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from common.config import Range
from policies.encoders.base import MAX_SIZE, Encoder, SectionsConfig
from policies.encoders.residual import Section, make_sections


@dataclass(frozen=True)
class EarlyPoolConfig(SectionsConfig):
    """Sizes of the encoder that pools early.

    Attributes:
        stem: channels of the convolution at full resolution.
        channels: channels of each section behind it; a section halves height and width (rounding up).
    """

    channels: Annotated[tuple[int, ...], Range(1, MAX_SIZE)] = (16, 32)
    stem: Annotated[int, Range(1, MAX_SIZE)] = 8


class EarlyPoolEncoder(Encoder):
    """IMPALA's network, narrower and without the residual blocks of its first section.

    What lies where is still found pixel by pixel and then pooled, unlike in the other light encoders.
    """

    config_class = EarlyPoolConfig
    config: EarlyPoolConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        stem = self.config.stem
        self.stem = Section(channels, stem, blocks=0)
        self.sections, size = make_sections(self.config, (height + 1) // 2, (width + 1) // 2, stem)
        return size

    def feature_maps(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.stem(pixels, is_pixels=True)
        for section in self.sections:
            maps = section(maps)
        return maps
