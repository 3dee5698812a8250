"""What is checked and timed: operators, their inputs, and policies with frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from policies import Policy, policy_config
from policies.ops.deltanet import DELTANET
from policies.ops.srwm import SRWM

# Those of `envs`, which cannot be imported here: it needs more than torch.
IMAGE_SHAPE = (64, 64, 3)
NUM_ACTIONS = 15

Operator = Callable[..., tuple[Tensor, Tensor]]
VERSIONS: dict[str, Mapping[str, Operator]] = {
    "srwm": SRWM.versions,
    "deltanet": DELTANET.versions,
}


def operator_inputs(
    operator: str, sizes: Sequence[int], device: torch.device, dtype: torch.dtype, resets: float = 0.05
) -> tuple[list[Tensor], Tensor]:
    """Random inputs at the scale that the layers have them in, and resets."""
    steps, batch, heads, width, output = sizes
    generator = torch.Generator().manual_seed(steps * 1000 + batch)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    if operator == "srwm":
        columns, scale = output + 2 * width + 4, width**-0.5
        sources = [
            randn(steps, batch, heads, width),
            scale * randn(heads, width, columns),
            0.3 * scale * randn(batch, heads, width, columns),
        ]
    else:
        sources = [
            randn(steps, batch, heads, width).softmax(-1),
            randn(steps, batch, heads, width).softmax(-1),
            randn(steps, batch, heads, output),
            randn(steps, batch, heads).sigmoid(),
            randn(batch, heads, width, output),
        ]
    reset = torch.rand(steps, batch, generator=generator) < resets
    return [source.to(device, dtype).requires_grad_() for source in sources], reset.to(device)


def frames(steps: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random images, last rewards and episode starts."""
    return (
        torch.randint(256, (steps, batch, *IMAGE_SHAPE), dtype=torch.uint8, device=device),
        torch.rand(steps, batch, 1, device=device),
        torch.rand(steps, batch, device=device) < 0.01,
    )


def make_policy(core: str, precision: str, device: torch.device) -> Policy:
    """The paper's network with fresh weights."""
    torch.manual_seed(0)
    policy = Policy(policy_config(core, precision=precision), IMAGE_SHAPE, NUM_ACTIONS)
    return policy.to(device)
