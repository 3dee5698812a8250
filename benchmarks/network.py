"""Frames a second of the encoder against what the machine's own matrix products allow.

    python -m benchmarks.network [--json FILE]

The paper's encoder needs 61 million floating-point operations for a frame forward, and 180 forward and backward
(nothing flows back into images). The machine's rate is that of one large float32 product with the same threads.
"""

from __future__ import annotations

import sys
from functools import partial

import torch

from benchmarks.figures import Figure, Part, best_seconds, main
from envs.native import IMAGE_SHAPE
from policies import ImpalaEncoderConfig
from policies.encoders.base import Encoder, EncoderConfig
from policies.encoders.impala import ImpalaEncoder
from policies.precision import resolved
from policies.registry import build_encoder, encoder_configs

SIZE = 2048


def operations(
    config: ImpalaEncoderConfig, image_shape: tuple[int, int, int] = IMAGE_SHAPE
) -> tuple[float, float]:
    """Floating-point operations for a frame: forward, and forward and backward; a multiply-add is two."""
    height, width, inputs = image_shape
    forward = unneeded = 0.0
    for number, outputs in enumerate(config.channels):
        section = 2.0 * height * width * 9 * inputs * outputs
        unneeded += section if number == 0 else 0.0  # the gradient with respect to the image
        height, width = (height + 1) // 2, (width + 1) // 2
        forward += section + 2 * config.blocks * 2.0 * height * width * 9 * outputs * outputs
        inputs = outputs
    forward += 2.0 * height * width * inputs * config.hidden
    return forward, 3 * forward - unneeded


def parts(quick: bool = False) -> list[Part]:
    """The encoder as a whole: its precisions and the product that they are held against take turns; then the others."""
    repetitions = 3 if quick else 10
    return [
        Part("network: encoder", partial(_measure, repetitions)),
        Part("network: light encoders", partial(_measure_light, repetitions)),
    ]


def light_encoders() -> dict[str, EncoderConfig]:
    """What can stand in for the published encoder, by the options that choose it."""
    narrow = ImpalaEncoderConfig(channels=(8, 16, 16))
    return {
        **{f"--encoder {name}": kind() for name, kind in encoder_configs().items() if name != "impala"},
        "--encoder.channels 8 16 16": narrow,
        "--encoder.blocks 1": ImpalaEncoderConfig(blocks=1),
    }


def _measure_light(repetitions: int) -> list[Figure]:
    """What a step of training costs, played once and learned from three times, against the published encoder."""
    acting = torch.randint(256, (64, *IMAGE_SHAPE), dtype=torch.uint8)
    learning = torch.randint(256, (16 * 51, *IMAGE_SHAPE), dtype=torch.uint8)
    precision = resolved("auto", torch.device("cpu"))
    published = "published"
    encoders = {
        name: build_encoder(config, IMAGE_SHAPE, precision)
        for name, config in {published: ImpalaEncoderConfig(), **light_encoders()}.items()
    }

    def forward(encoder: Encoder) -> None:
        with torch.no_grad():
            encoder(acting)

    def both(encoder: Encoder) -> None:
        encoder(learning).sum().backward()

    calls = {f"{name} forward": partial(forward, encoder) for name, encoder in encoders.items()}
    calls |= {f"{name} both": partial(both, encoder) for name, encoder in encoders.items()}
    seconds = best_seconds(calls, repetitions)
    played = {name: seconds[f"{name} forward"] / len(acting) for name in encoders}
    learned = {name: seconds[f"{name} both"] / len(learning) for name in encoders}
    cost = {name: played[name] + 3 * learned[name] for name in encoders}
    return [
        Figure(
            f"encoder {name}, played once and learned from three times, {precision}",
            "the published one",
            cost[published] / cost[name],
            facts={
                "frames/s forward": 1 / played[name],
                "frames/s forward and backward": 1 / learned[name],
                "thousand weights": sum(weight.numel() for weight in encoder.parameters()) / 1e3,
            },
        )
        for name, encoder in encoders.items()
    ]


def _measure(repetitions: int) -> list[Figure]:
    """Forward at an acting batch, forward and backward at a learning batch; bfloat16 against float32."""
    config = ImpalaEncoderConfig()
    forward_operations, both_operations = operations(config)
    left = torch.randn(SIZE, SIZE)
    acting = torch.randint(256, (66, *IMAGE_SHAPE), dtype=torch.uint8)
    learning = torch.randint(256, (22 * 51, *IMAGE_SHAPE), dtype=torch.uint8)
    encoders = {
        precision: ImpalaEncoder(config, IMAGE_SHAPE, precision) for precision in ("float32", "bfloat16")
    }

    def forward(precision: str) -> None:
        with torch.no_grad():
            for _ in range(4):
                encoders[precision](acting)

    def both(precision: str) -> None:
        encoders[precision](learning).sum().backward()

    seconds = best_seconds(
        {
            "product": lambda: left @ left,
            "forward float32": lambda: forward("float32"),
            "forward bfloat16": lambda: forward("bfloat16"),
            "both float32": lambda: both("float32"),
            "both bfloat16": lambda: both("bfloat16"),
        },
        repetitions,
    )
    rate = 2.0 * SIZE**3 / seconds["product"]
    frames = {
        name: (4 * len(acting) if name.startswith("forward") else len(learning)) / spent
        for name, spent in seconds.items()
        if name != "product"
    }
    allowed = {"forward": rate / forward_operations, "both": rate / both_operations}
    words = {
        "forward": f"encoder forward, {len(acting)} frames",
        "both": f"encoder forward and backward, {len(learning)} frames",
    }
    figures = [
        Figure(
            words[what],
            "float32 matrix products",
            frames[f"{what} float32"] / allowed[what],
            aim={"forward": 0.8, "both": 0.75}[what],
            facts={"frames/s": frames[f"{what} float32"], "allowed frames/s": allowed[what]},
        )
        for what in words
    ]
    figures += [
        Figure(
            f"{words[what]}, bfloat16",
            "the same in float32",
            frames[f"{what} bfloat16"] / frames[f"{what} float32"],
            facts={"frames/s": frames[f"{what} bfloat16"]},
        )
        for what in words
    ]
    return figures


if __name__ == "__main__":
    sys.exit(main("Network", parts))
