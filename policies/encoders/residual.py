"""What IMPALA's encoder is made of: max-pooling, residual blocks, and sections of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.encoders.base import Encoder, SectionsConfig, scaled_conv


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


def max_pool(x: Tensor) -> Tensor:
    """Maximum over 3 x 3 windows, stride 2, padding 1."""
    if x.requires_grad or x.device.type != "cpu":
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    # torch's pooling also finds where each maximum lies, which only a backward pass needs. Rows, then
    # columns, is more than twice as fast on a CPU: 10 % of a forward pass of the whole encoder.
    return _halve(_halve(x, 2), 3)


class Residual(nn.Module):
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


class Section(nn.Module):
    """Convolution, max-pool to half the size, residual blocks `residual1`, `residual2`, ..."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self._blocks = [f"residual{number}" for number in range(1, blocks + 1)]
        for name in self._blocks:
            self.add_module(name, Residual(outputs))

    def forward(self, x: Tensor, *, is_pixels: bool = False) -> Tensor:
        """Features of `x` (N, C, H, W); pixels 0 to 255 are scaled to 0 to 1."""
        x = max_pool(scaled_conv(self.conv, x) if is_pixels else self.conv(x))
        for name in self._blocks:
            x = self.get_submodule(name)(x)
        return x


def make_sections(
    config: SectionsConfig, height: int, width: int, channels: int
) -> tuple[nn.ModuleList, tuple[int, int, int]]:
    """The sections of `config` for maps of this size; and height, width and channels of what the last puts out."""
    sections = nn.ModuleList()
    for outputs in config.channels:
        sections.append(Section(channels, outputs, config.blocks))
        height, width, channels = (height + 1) // 2, (width + 1) // 2, outputs
    return sections, (height, width, channels)


class SectionsEncoder(Encoder):
    """Sections on the frame, or on what a subclass makes of it."""

    config: SectionsConfig

    def make_layers(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        self.sections, size = make_sections(self.config, height, width, channels)
        return size

    def feature_maps(self, pixels: Tensor) -> Tensor:
        first, *others = self.sections
        maps: Tensor = first(pixels, is_pixels=True)
        for section in others:
            maps = section(maps)
        return maps
