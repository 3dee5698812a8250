"""A light encoder: the frame averaged over squares of pixels, then IMPALA's sections on a quarter of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from common.config import Range
from policies.encoders.base import SectionsConfig
from policies.encoders.residual import SectionsEncoder


@dataclass(frozen=True)
class SmallFramesConfig(SectionsConfig):
    """Sizes of the encoder of shrunken frames.

    Attributes:
        shrink: side of the squares of pixels that are averaged to one.
    """

    shrink: Annotated[int, Range(1, 64)] = 2


class SmallFramesEncoder(SectionsEncoder):
    """IMPALA's sections on frames that are `shrink` times smaller in height and width (rounding up)."""

    config_class = SmallFramesConfig
    config: SmallFramesConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        side = self.config.shrink
        return super().make_layers(-(-height // side), -(-width // side), channels)

    def feature_maps(self, pixels: Tensor) -> Tensor:
        # The last row and column of squares may lie half outside; what lies outside does not count.
        return super().feature_maps(F.avg_pool2d(pixels, self.config.shrink, ceil_mode=True))
