"""A light encoder: squares of pixels become channels, and IMPALA's sections see all of them on small maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import Range
from policies.encoders.base import SectionsConfig
from policies.encoders.residual import SectionsEncoder


@dataclass(frozen=True)
class SpaceToDepthConfig(SectionsConfig):
    """Sizes of the encoder of squares.

    Attributes:
        square: side of the squares of pixels whose colours become the channels of one place.
    """

    square: Annotated[int, Range(1, 64)] = 2


class SpaceToDepthEncoder(SectionsEncoder):
    """IMPALA's sections on squares of pixels; height and width are padded with black to whole squares."""

    config_class = SpaceToDepthConfig
    config: SpaceToDepthConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        side = self.config.square
        self._padding = (0, -width % side, 0, -height % side)
        return super().make_layers(-(-height // side), -(-width // side), channels * side * side)

    def feature_maps(self, pixels: Tensor) -> Tensor:
        if any(self._padding):
            pixels = F.pad(pixels, self._padding)
        squares = F.pixel_unshuffle(pixels, self.config.square)
        return super().feature_maps(squares.contiguous(memory_format=torch.channels_last))
