"""The delta rule (DeltaNet; Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174, equations 23 to 25)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policies.ops.checks import check_implementation, check_reset, check_shape
from policies.ops.deltanet.chunk import deltanet_chunk
from policies.ops.deltanet.naive import deltanet_naive
from policies.ops.deltanet.step import deltanet_step
from policies.ops.triton_support import prefers_triton, require_triton


def _deltanet_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """Triton is imported where it is used, not before."""
    require_triton(q.device, q.shape[-1], v.shape[-1])
    from policies.ops.deltanet.triton_scan import deltanet_triton

    return deltanet_triton(q, k, v, beta, memory, reset)


IMPLEMENTATIONS: dict[
    str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
] = {
    "naive": deltanet_naive,
    "chunk": deltanet_chunk,
    "step": deltanet_step,
    "triton": _deltanet_triton,
}
"""Versions of the operator by name."""


def choose(device: torch.device, steps: int, width: int = 1, output: int = 1) -> str:
    """The implementation that "auto" stands for: on this device, for sequences of this many steps and for heads of
    this width (D) and output (E)."""
    if prefers_triton(device, width, output):
        return "triton"
    if steps == 1:
        # Elsewhere than on the CPU the plain loop, which never waits for the device: a CUDA graph can hold it.
        return "step" if device.type == "cpu" else "naive"
    return "chunk"


def deltanet(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    reset: Tensor,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Write key-value pairs into a fast weight matrix with the delta rule, and read it with queries.

    For each stream and head, with W a D x E matrix:

        W_t = W_{t-1} + k_t (outer) (beta_t * (v_t - k_t W_{t-1}))
        y_t = q_t W_t

    The output is read after the update. Queries and keys are used as they come: feature map, normalisation
    and the sigmoid of the rate are the caller's. Gradient reaches every argument but `reset`, and never
    crosses a reset. Gradients of gradients exist for "naive" only.

    Args:
        q, k: queries and keys (T, B, H, D), T at least 1.
        v: values (T, B, H, E).
        beta: writing rates (T, B, H).
        memory: W before the first step (B, H, D, E). Not modified.
        reset: bool (T, B); where true, W is set to zero before step t.
        implementation: a name in `IMPLEMENTATIONS`, or "auto" for the fastest one that can run these tensors.

    Returns:
        y (T, B, H, E), and W after the last step (B, H, D, E).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation.
    """
    check_implementation("deltanet", implementation, IMPLEMENTATIONS)
    if q.dim() != 4 or q.shape[0] == 0:
        raise ValueError(f"q must be (T, B, H, D) with T at least 1, got {tuple(q.shape)}")
    steps, batch, heads, width = q.shape
    values = v.shape[-1]
    check_shape("k", k, (steps, batch, heads, width))
    check_shape("v", v, (steps, batch, heads, values))
    check_shape("beta", beta, (steps, batch, heads))
    check_shape("memory", memory, (batch, heads, width, values))
    check_reset(reset, steps, batch)
    name = choose(q.device, steps, width, values) if implementation == "auto" else implementation
    return IMPLEMENTATIONS[name](q, k, v, beta, memory, reset)
