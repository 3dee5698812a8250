"""The delta rule (DeltaNet; Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174, equations 23 to 25)."""

from __future__ import annotations

from torch import Tensor

from policies.ops.deltanet.chunk import deltanet_chunk
from policies.ops.deltanet.naive import deltanet_naive
from policies.ops.deltanet.step import deltanet_step
from policies.ops.operator import AUTO, Operator
from policies.ops.support import check_reset, check_shape


def _deltanet_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    """Triton is imported where it is used, not before."""
    from policies.ops.deltanet.triton_scan import deltanet_triton

    return deltanet_triton(q, k, v, beta, memory, reset)


DELTANET = Operator(
    "deltanet",
    {"naive": deltanet_naive, "chunk": deltanet_chunk, "step": deltanet_step, "triton": _deltanet_triton},
    sequence="chunk",
)


def deltanet(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    reset: Tensor,
    implementation: str = AUTO,
) -> tuple[Tensor, Tensor]:
    """Write key-value pairs into a fast weight matrix with the delta rule, and read it with queries.

    For each environment and head, with W a D x E matrix:

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
        implementation: a name in `DELTANET.versions`, or "auto" for the fastest one that can run these tensors.

    Returns:
        y (T, B, H, E), and W after the last step (B, H, D, E).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation, or it cannot run these tensors.
    """
    if q.dim() != 4 or q.shape[0] == 0:
        raise ValueError(f"q must be (T, B, H, D) with T at least 1, got {tuple(q.shape)}")
    steps, batch, heads, width = q.shape
    values = v.shape[-1]
    check_shape("k", k, (steps, batch, heads, width))
    check_shape("v", v, (steps, batch, heads, values))
    check_shape("beta", beta, (steps, batch, heads))
    check_shape("memory", memory, (batch, heads, width, values))
    check_reset(reset, steps, batch)
    run = DELTANET.version(q.device, steps, width, values, implementation)
    y, new_memory = run(q, k, v, beta, memory, reset)
    return y, new_memory
