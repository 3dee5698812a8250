"""Every encoder against an independent computation: channels first, float64, nothing in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import check, plain
from common.errors import UserError
from policies import ENCODERS, PolicyConfig, from_json, policy_config
from policies.encoders.base import Encoder

Weights = dict[str, Tensor]


def conv(p: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    weight = p[f"{name}.weight"].contiguous(memory_format=torch.contiguous_format)
    return F.conv2d(x, weight, p[f"{name}.bias"], stride, padding)


def sections(p: Weights, config: Any, x: Tensor) -> Tensor:
    for index in range(len(config.channels)):
        x = conv(p, f"sections.{index}.conv", x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for block in range(1, config.blocks + 1):
            name = f"sections.{index}.residual{block}"
            inner = conv(p, f"{name}.conv1", F.relu(x))
            x = x + conv(p, f"{name}.conv2", F.relu(inner))
    return x


def shrunken(p: Weights, config: Any, x: Tensor) -> Tensor:
    side = config.shrink
    rows = [
        [x[:, :, i : i + side, j : j + side].mean((2, 3)) for j in range(0, x.shape[3], side)]
        for i in range(0, x.shape[2], side)
    ]
    return sections(p, config, torch.stack([torch.stack(row, -1) for row in rows], -2))


def squares(p: Weights, config: Any, x: Tensor) -> Tensor:
    side = config.square
    x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
    channels = [
        x[:, c, i::side, j::side] for c in range(x.shape[1]) for i in range(side) for j in range(side)
    ]
    return sections(p, config, torch.stack(channels, 1))


def strided(p: Weights, config: Any, x: Tensor) -> Tensor:
    return sections(p, config, conv(p, "stem", x, config.stride, config.stride - 1))


def pooled(p: Weights, config: Any, x: Tensor) -> Tensor:
    return sections(p, config, F.max_pool2d(conv(p, "stem.conv", x), 3, 2, 1))


def nature(p: Weights, config: Any, x: Tensor) -> Tensor:
    for index, (stride, padding) in enumerate([(4, 2), (2, 1), (1, 1)]):
        x = conv(p, f"convolutions.{index}", F.relu(x) if index else x, stride, padding)
    return x


FEATURE_MAPS: dict[str, Callable[[Weights, Any, Tensor], Tensor]] = {
    "impala": sections,
    "small_frames": shrunken,
    "space_to_depth": squares,
    "strided": strided,
    "early_pool": pooled,
    "nature": nature,
}


def literal(name: str, encoder: Encoder, images: Tensor) -> Tensor:
    """The features as the encoder's description has them, with its parameters."""
    p = {key: tensor.double() for key, tensor in encoder.named_parameters()}
    x = FEATURE_MAPS[name](p, encoder.config, images.permute(0, 3, 1, 2).contiguous().double() / 255.0)
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


def random_images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count * height + width)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def make(name: str, size: tuple[int, int], precision: str = "float32", **settings: Any) -> Encoder:
    torch.manual_seed(0)
    encoder = ENCODERS[name]
    return encoder(encoder.config_class(**settings), (*size, 3), precision)


every_encoder = pytest.mark.parametrize("name", ENCODERS)


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("impala", (64, 64), {}),
        ("impala", (8, 8), {"channels": (4,)}),
        ("impala", (9, 14), {"channels": (4, 5), "blocks": 1}),
        ("impala", (1, 3), {"channels": (2, 2), "blocks": 3}),
        ("small_frames", (64, 64), {"channels": (4, 8)}),
        ("small_frames", (9, 14), {"channels": (4,), "shrink": 4}),
        ("space_to_depth", (64, 64), {"channels": (4, 8)}),
        ("space_to_depth", (7, 10), {"channels": (4,), "square": 3}),
        ("early_pool", (64, 64), {"channels": (4, 8)}),
        ("early_pool", (9, 14), {"channels": (4,), "stem": 5, "blocks": 1}),
        ("strided", (64, 64), {"channels": (4, 8)}),
        ("strided", (9, 14), {"channels": (4,), "stem": 5, "stride": 4}),
        ("nature", (64, 64), {}),
        ("nature", (9, 14), {"channels": (4, 5, 6)}),
    ],
)
def test_values_and_gradients(name: str, size: tuple[int, int], settings: dict[str, Any]) -> None:
    encoder = make(name, size, hidden=32, **settings)
    images = random_images(3, *size)
    expected = literal(name, encoder, images)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), list(encoder.parameters()))
    actual = encoder(images)
    assert actual.dtype is torch.float32
    assert actual.shape == (3, 32)
    assert expected.std() > 0
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad((actual * weights.float()).sum(), list(encoder.parameters()))
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-3, atol=1e-4)


def test_each_encoder_has_an_independent_computation() -> None:
    assert set(FEATURE_MAPS) == set(ENCODERS)


@every_encoder
@pytest.mark.parametrize("size", [(64, 64), (9, 14)])
def test_no_grad_gives_the_same_features(name: str, size: tuple[int, int]) -> None:
    encoder = make(name, size)
    images = random_images(5, *size)
    with torch.no_grad():
        without = encoder(images)
    torch.testing.assert_close(without, encoder(images).detach(), rtol=1e-5, atol=1e-6)


@every_encoder
def test_bfloat16_is_close_to_float32_and_trains(name: str) -> None:
    features, gradients = [], []
    images = random_images(4, 32, 32)
    for precision in ("float32", "bfloat16"):
        encoder = make(name, (32, 32), precision)
        out = encoder(images)
        assert out.dtype is torch.float32
        assert all(parameter.dtype is torch.float32 for parameter in encoder.parameters())
        out.square().sum().backward()
        features.append(out.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert not torch.equal(*features)  # it did compute in another precision
    for exact, rounded in (features, gradients):
        assert (exact - rounded).norm() < 0.04 * exact.norm()


@every_encoder
def test_parameters_are_channels_last_and_follow_the_seed(name: str) -> None:
    first, second = make(name, (64, 64)), make(name, (64, 64))
    for (parameter, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() != 4 or a.is_contiguous(memory_format=torch.channels_last), parameter


@every_encoder
def test_images_are_not_modified(name: str) -> None:
    encoder = make(name, (8, 8))
    images = random_images(2, 8, 8)
    before = images.clone()
    encoder(images).sum().backward()
    assert torch.equal(images, before)


@every_encoder
def test_wrong_images_raise(name: str) -> None:
    encoder = make(name, (8, 8))
    with pytest.raises(TypeError, match="uint8"):
        encoder(torch.zeros(2, 8, 8, 3))
    with pytest.raises(ValueError, match="images must be"):
        encoder(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


@every_encoder
def test_impossible_images_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="images"):
        make(name, (8, 0))


def test_images_that_leave_no_pixel_are_refused() -> None:
    with pytest.raises(UserError, match="too small"):
        make("nature", (3, 8))


@every_encoder
def test_a_policy_names_its_encoder(name: str) -> None:
    config = policy_config("feedforward", encoder={"name": name, "hidden": 7})
    assert type(config.encoder) is ENCODERS[name].config_class
    assert from_json(plain(config)) == config


def test_a_policy_of_before_encoders_had_names_has_the_published_one() -> None:
    config = from_json({"core": "lstm", "encoder": {"channels": [16, 32, 32], "hidden": 256}})
    assert config == PolicyConfig(config.core)


def test_a_wrong_number_of_convolutions_is_refused() -> None:
    with pytest.raises(UserError, match="give 3"):
        check(ENCODERS["nature"].config_class(channels=(1, 2)))  # type: ignore[call-arg]


def test_unknown_encoders_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown encoder 'impalla': did you mean impala"):
        policy_config("feedforward", encoder="impalla")
