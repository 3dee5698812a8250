"""The image encoder: IMPALA's residual network (Espeholt et al., arXiv 1802.01561, figure 3, right)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import Range
from common.errors import UserError

MAX_SECTIONS, MAX_SIZE = 32, 65_536
"""Beyond these a number is a typing error."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder; the defaults are the paper's.

    Attributes:
        channels: channels of each section; a section halves height and width (rounding up).
        hidden: width of the output.
    """

    channels: Annotated[tuple[int, ...], Range(1, MAX_SIZE)] = (16, 32, 32)
    hidden: Annotated[int, Range(1, MAX_SIZE)] = 256

    def contradictions(self) -> list[str]:
        """What is wrong with the number of sections."""
        if 1 <= len(self.channels) <= MAX_SECTIONS:
            return []
        return [f"encoder channels are {len(self.channels)} numbers: give 1 to {MAX_SECTIONS}"]


def _halve(x: Tensor, dim: int) -> Tensor:
    """Maximum over windows of three, two apart, along `dim`; the first starts one before the border."""
    size = x.shape[dim]
    every_second = [slice(None)] * x.dim()
    every_second[dim] = slice(0, size, 2)
    even = x[tuple(every_second)]
    every_second[dim] = slice(1, size, 2)
    odd = x[tuple(every_second)]
    odds, windows = odd.shape[dim], even.shape[dim]
    result = torch.maximum(even.narrow(dim, 0, odds), odd)  # each window's centre and what follows it
    if windows > odds:  # nothing follows the last centre
        result = torch.cat([result, even.narrow(dim, odds, 1)], dim)
    all_but_first = result.narrow(dim, 1, windows - 1)
    torch.maximum(all_but_first, odd.narrow(dim, 0, windows - 1), out=all_but_first)
    return result


def _max_pool(x: Tensor) -> Tensor:
    """Maximum over 3 x 3 windows, stride 2, padding 1."""
    if x.requires_grad or x.device.type != "cpu":
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    # torch's pooling also finds where each maximum lies, which only a backward pass needs. Rows, then
    # columns, is more than twice as fast on a CPU: 10 % of a forward pass of the whole encoder.
    return _halve(_halve(x, 2), 3)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place where the backward pass does not need what is overwritten: a convolution keeps its input,
        # not its output, and a ReLU keeps its output.
        inner = F.relu_(self.conv1(F.relu(x)))
        result: Tensor = self.conv2(inner).add_(x)
        return result


class _Section(nn.Module):
    """Convolution, max-pool to half the size, two residual blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.residual1 = _Residual(outputs)
        self.residual2 = _Residual(outputs)

    def forward(self, x: Tensor, input_scale: float = 1.0) -> Tensor:
        weight = self.conv.weight if input_scale == 1.0 else self.conv.weight * input_scale
        x = F.conv2d(x, weight, self.conv.bias, padding=1)
        x = _max_pool(x)
        result: Tensor = self.residual2(self.residual1(x))
        return result


class ImpalaEncoder(nn.Module):
    """uint8 images (N, H, W, C) -> features (N, hidden), float32.

    Height-width-channel memory is what a channels-last convolution reads, so images are converted but never
    rearranged. Initial weights are torch's defaults, as published. The features of the last section are
    flattened in the order height, width, channel. With precision "bfloat16" the convolutions and the linear
    layer compute in bfloat16; parameters and output stay float32.

    Raises:
        UserError: impossible image shape.
    """

    def __init__(
        self, config: EncoderConfig, image_shape: tuple[int, int, int], precision: str = "float32"
    ) -> None:
        super().__init__()
        if min(image_shape) < 1:
            raise UserError(f"images cannot be of shape {image_shape}: give (height, width, channels)")
        self.image_shape = tuple(image_shape)
        self.precision = precision
        self.output_size = config.hidden
        height, width, inputs = image_shape
        sections: list[nn.Module] = []
        for outputs in config.channels:
            sections.append(_Section(inputs, outputs))
            height, width, inputs = (height + 1) // 2, (width + 1) // 2, outputs
        self.sections = nn.ModuleList(sections)
        self.linear = nn.Linear(height * width * inputs, config.hidden)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

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
        x = images.permute(0, 3, 1, 2).to(dtype)
        # The images' scale, 1/255, goes into the first convolution's few weights instead of the many pixels
        # (and the pixels 0 to 255 are exact in bfloat16).
        first, *others = self.sections
        x = first(x, 1.0 / 255.0)
        for section in others:
            x = section(x)
        flat = F.relu_(x).permute(0, 2, 3, 1).flatten(1)
        return F.relu_(self.linear(flat))
