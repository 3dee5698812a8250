"""The self-referential weight matrix (SRWM; Irie et al., ICML 2022, arXiv 2202.05780, equations 5 to 8)."""

from __future__ import annotations

from torch import Tensor

from policies.ops.operator import AUTO, Operator
from policies.ops.srwm.fused import srwm_fused
from policies.ops.srwm.naive import srwm_naive
from policies.ops.srwm.step import srwm_step
from policies.ops.support import check_reset, check_shape


def _srwm_triton(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """Triton is imported where it is used, not before."""
    from policies.ops.srwm.triton_scan import srwm_triton

    return srwm_triton(x, w0, shift, reset)


SRWM = Operator(
    "srwm",
    {"naive": srwm_naive, "fused": srwm_fused, "step": srwm_step, "triton": _srwm_triton},
    sequence="fused",
)


def srwm(
    x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor, implementation: str = AUTO
) -> tuple[Tensor, Tensor]:
    """Run a matrix that rewrites itself over a sequence.

    For each environment and head, with D the head's width, E the width of its output, phi the softmax over D and W a
    D x (E + 2D + 4) matrix:

        [y_t, q_t, k_t, beta_t] = phi(x_t) W_{t-1}
        W_t = W_{t-1} + phi(k_t) (outer) (sigmoid(beta_t) * (phi(q_t) W_{t-1} - phi(k_t) W_{t-1}))

    beta_t has one rate for each of the blocks y, q, k, beta of the columns. E follows from the number of columns of
    `w0`; in the paper's layer it is D. The output is read before the update. Gradient reaches every argument but
    `reset`, through the updates too, and never crosses a reset.
    Gradients of gradients exist for "naive" only.

    Args:
        x: inputs (T, B, H, D), T at least 1.
        w0: the trained matrix (H, D, E + 2D + 4); columns in the order y, q, k, beta.
        shift: W_0 of this sequence minus `w0` (B, H, D, E + 2D + 4); zero for a fresh environment. Not modified.
        reset: bool (T, B); where true, W is set back to `w0` before step t.
        implementation: a name in `SRWM.versions`, or "auto" for the fastest one that can run these tensors.

    Returns:
        y (T, B, H, E), and the shift after the last step (B, H, D, E + 2D + 4).

    Raises:
        TypeError: `reset` is not bool.
        ValueError: shapes do not fit together.
        UserError: no such implementation, or it cannot run these tensors.
    """
    if x.dim() != 4 or x.shape[0] == 0:
        raise ValueError(f"x must be (T, B, H, D) with T at least 1, got {tuple(x.shape)}")
    steps, batch, heads, width = x.shape
    columns = w0.shape[-1] if w0.dim() else 0
    output = columns - 2 * width - 4
    if output < 1:
        raise ValueError(
            f"w0 must be (H, D, E + 2D + 4) with E at least 1: for D = {width} that is {2 * width + 5} columns "
            f"or more, got {tuple(w0.shape)}"
        )
    check_shape("w0", w0, (heads, width, columns))
    check_shape("shift", shift, (batch, heads, width, columns))
    check_reset(reset, steps, batch)
    run = SRWM.version(x.device, steps, width, output, implementation)
    y, new_shift = run(x, w0, shift, reset)
    return y, new_shift
