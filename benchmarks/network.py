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
from policies.encoders.impala import ImpalaEncoder

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
    """The encoder as a whole: its precisions and the product that they are held against take turns."""
    return [Part("network: encoder", partial(_measure, 3 if quick else 10))]


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
