"""What every image encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import Range
from common.errors import UserError

MAX_SIZE = 65_536
"""Beyond this a number is a typing error."""


@dataclass(frozen=True)
class EncoderConfig:
    """Settings that every encoder has.

    Attributes:
        hidden: width of the output.
    """

    hidden: Annotated[int, Range(1, MAX_SIZE)] = 256


@dataclass(frozen=True)
class SectionsConfig(EncoderConfig):
    """Settings of encoders that are made of residual sections.

    Attributes:
        channels: channels of each section; a section halves height and width (rounding up).
        blocks: residual blocks in each section.
    """

    channels: Annotated[tuple[int, ...], Range(1, MAX_SIZE)] = (16, 32, 32)
    blocks: Annotated[int, Range(0, 64)] = 2

    def contradictions(self) -> list[str]:
        """What is wrong with the number of sections."""
        if 1 <= len(self.channels) <= 32:
            return []
        return [f"encoder channels are {len(self.channels)} numbers: give 1 to 32"]


class Encoder(nn.Module, ABC):
    """uint8 images (N, H, W, C) -> features (N, hidden), float32.

    Height-width-channel memory is what a channels-last convolution reads, so images are converted but never
    rearranged. Initial weights are torch's defaults. Feature maps are flattened in the order height, width, channel.
    With precision "bfloat16" convolutions and linear layer compute in bfloat16; parameters and output stay float32.

    A subclass makes its layers in `make_layers` and applies them in `feature_maps`.

    Args:
        config: an instance of `config_class`.
        image_shape: (height, width, channels).

    Raises:
        UserError: impossible image shape.
    """

    config_class: ClassVar[type[EncoderConfig]] = EncoderConfig

    def __init__(
        self, config: EncoderConfig, image_shape: tuple[int, int, int], precision: str = "float32"
    ) -> None:
        super().__init__()
        if min(image_shape) < 1:
            raise UserError(f"images cannot be of shape {image_shape}: give (height, width, channels)")
        self.config = config
        self.image_shape = tuple(image_shape)
        self.precision = precision
        self.output_size = config.hidden
        height, width, channels = self.make_layers(*image_shape)
        if min(height, width) < 1:
            raise UserError(f"images of shape {image_shape} are too small for this encoder: choose another")
        self.linear = nn.Linear(height * width * channels, config.hidden)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @abstractmethod
    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Create the layers for images of this size; returns height, width and channels of what they put out."""

    @abstractmethod
    def feature_maps(self, pixels: Tensor) -> Tensor:
        """Features (N, C', H', W') of `pixels` (N, C, H, W), channels last, 0 to 255; they may be overwritten.

        The scale of the pixels, 1/255, belongs into the first convolution's few weights (`scaled_conv`) instead of the
        many pixels; and the numbers 0 to 255 are exact in bfloat16.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Features of `images` (N, H, W, C), uint8, 0 to 255.

        Raises:
            TypeError: `images` are not uint8.
            ValueError: they have another shape than `image_shape`.
        """
        if images.dtype is not torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if images.dim() != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(f"images must be (N, {self.image_shape}), got {tuple(images.shape)}")
        if self.precision == "bfloat16":
            with torch.autocast(images.device.type, dtype=torch.bfloat16):
                return self._features(images, torch.bfloat16).float()
        return self._features(images, self.linear.weight.dtype)

    def _features(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        maps = self.feature_maps(images.permute(0, 3, 1, 2).to(dtype))
        return F.relu_(self.linear(F.relu_(maps).permute(0, 2, 3, 1).flatten(1)))


def scaled_conv(conv: nn.Conv2d, pixels: Tensor) -> Tensor:
    """`conv` of `pixels` / 255."""
    return F.conv2d(pixels, conv.weight * (1.0 / 255.0), conv.bias, conv.stride, conv.padding)
