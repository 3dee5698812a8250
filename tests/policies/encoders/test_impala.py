"""The encoder against an independent computation: channels first, float64, nothing in place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import check
from common.errors import UserError
from policies.encoders.impala import ImpalaEncoder, ImpalaEncoderConfig


def literal(encoder: ImpalaEncoder, images: Tensor) -> Tensor:
    """The network as the paper draws it, with the encoder's parameters."""
    p = {name: tensor.double() for name, tensor in encoder.named_parameters()}

    def conv(name: str, x: Tensor) -> Tensor:
        weight = p[f"{name}.weight"].contiguous(memory_format=torch.contiguous_format)
        return F.conv2d(x, weight, p[f"{name}.bias"], padding=1)

    x = images.permute(0, 3, 1, 2).contiguous().double() / 255.0
    for index in range(len(encoder.sections)):
        x = conv(f"sections.{index}.conv", x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for block in ("residual1", "residual2"):
            inner = conv(f"sections.{index}.{block}.conv1", F.relu(x))
            x = x + conv(f"sections.{index}.{block}.conv2", F.relu(inner))
    flat = torch.stack(
        [
            F.relu(x)[:, c, h, w]
            for h in range(x.shape[2])
            for w in range(x.shape[3])
            for c in range(x.shape[1])
        ],
        dim=1,
    )
    return F.relu(flat @ p["linear.weight"].t() + p["linear.bias"])


def random_images(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(count * height + width)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(64, 64, (16, 32, 32)), (8, 8, (4,)), (9, 14, (4, 5)), (1, 3, (2, 2))]
)
def test_values_and_gradients(height: int, width: int, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = ImpalaEncoder(ImpalaEncoderConfig(channels=channels, hidden=32), (height, width, 3))
    images = random_images(3, height, width)
    expected = literal(encoder, images)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), list(encoder.parameters()))
    actual = encoder(images)
    assert actual.dtype is torch.float32
    assert actual.shape == (3, encoder.output_size)
    assert (expected > 0).any()
    assert expected.std() > 0
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad((actual * weights.float()).sum(), list(encoder.parameters()))
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (7, 10)])
def test_no_grad_gives_the_same_features(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = ImpalaEncoder(ImpalaEncoderConfig(channels=(4, 8)), (*size, 3))
    images = random_images(5, *size)
    with torch.no_grad():
        without = encoder(images)
    torch.testing.assert_close(without, encoder(images).detach(), rtol=1e-5, atol=1e-6)


def test_bfloat16_is_close_to_float32_and_trains() -> None:
    features, gradients = [], []
    images = random_images(4, 32, 32)
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        encoder = ImpalaEncoder(ImpalaEncoderConfig(), (32, 32, 3), precision)
        out = encoder(images)
        assert out.dtype is torch.float32
        assert all(parameter.dtype is torch.float32 for parameter in encoder.parameters())
        out.square().sum().backward()
        features.append(out.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert not torch.equal(*features)  # it did compute in another precision
    for exact, rounded in (features, gradients):
        assert (exact - rounded).norm() < 0.03 * exact.norm()


def test_parameters_are_channels_last_and_follow_the_seed() -> None:
    def build() -> ImpalaEncoder:
        torch.manual_seed(7)
        return ImpalaEncoder(ImpalaEncoderConfig(), (64, 64, 3))

    first, second = build(), build()
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() != 4 or a.is_contiguous(memory_format=torch.channels_last), name
    assert (
        sum(parameter.numel() for parameter in first.parameters()) == 97_600 + 2048 * 256 + 256
    )  # convolutions, linear


def test_images_are_not_modified() -> None:
    encoder = ImpalaEncoder(ImpalaEncoderConfig(channels=(4,)), (8, 8, 3))
    images = random_images(2, 8, 8)
    before = images.clone()
    encoder(images).sum().backward()
    assert torch.equal(images, before)


def test_wrong_images_raise() -> None:
    encoder = ImpalaEncoder(ImpalaEncoderConfig(channels=(4,)), (8, 8, 3))
    with pytest.raises(TypeError, match="uint8"):
        encoder(torch.zeros(2, 8, 8, 3))
    with pytest.raises(ValueError, match="images must be"):
        encoder(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("channels", [(), (16, 0), (16, -1), (2.5,), "16", 16, (1,) * 33, (10**9,)])
def test_impossible_sizes_are_refused(channels: object) -> None:
    with pytest.raises(UserError, match="channels"):
        check(ImpalaEncoderConfig(channels=channels))  # type: ignore[arg-type]


def test_impossible_images_are_refused() -> None:
    with pytest.raises(UserError, match="images"):
        ImpalaEncoder(ImpalaEncoderConfig(), (8, 0, 3))
