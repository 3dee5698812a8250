"""Is every version of every operator right: compared with the plain loop in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_check.inputs import VERSIONS, Operator, operator_inputs

# T, B, H, D, E: single steps, sizes that divide by nothing, outputs of other widths, the widest heads, long unrolls.
CHECKED = [
    (1, 3, 2, 16, 16),
    (7, 5, 3, 16, 16),
    (50, 32, 8, 16, 16),
    (50, 4, 8, 16, 49),
    (13, 4, 2, 24, 40),
    (9, 3, 1, 5, 11),
    (20, 4, 2, 64, 64),
    (256, 4, 8, 16, 16),
]


@dataclass(frozen=True)
class Error:
    """How far one version is from the plain loop in float64.

    Attributes:
        what: operator, version, precision and sizes.
        largest: the largest relative error of outputs and gradients, norm(found - exact) / norm(exact).
        allowed: what it may be.
    """

    what: str
    largest: float
    allowed: float

    @property
    def right(self) -> bool:
        """False for a NaN too."""
        return self.largest <= self.allowed


def results(run: Operator, sources: Sequence[Tensor], reset: Tensor) -> list[Tensor]:
    """Outputs and the gradients of all sources, in float64."""
    outputs = run(*sources, reset)
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(output.shape, dtype=torch.float64, generator=generator) for output in outputs]
    loss = torch.stack(
        [(output.double() * w.to(output.device)).sum() for output, w in zip(outputs, weights, strict=True)]
    ).sum()
    return [tensor.detach().double() for tensor in (*outputs, *torch.autograd.grad(loss, sources))]


def largest_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest of the tensors' relative errors; NaN if one is NaN."""
    errors = [
        (got - wanted).norm().item() / max(wanted.norm().item(), 1e-30)
        for got, wanted in zip(found, exact, strict=True)
    ]
    return math.nan if any(math.isnan(error) for error in errors) else max(errors)


def spoil_free_memory(device: torch.device) -> None:
    """Leave NaNs in the memory that is given out next, so that what a kernel does not write shows."""
    for size in (1 << 10, 1 << 16, 1 << 20, 1 << 24):
        pieces = [torch.full((size,), math.nan, device=device) for _ in range(4)]
        del pieces


def check_operators(device: torch.device, shapes: Sequence[Sequence[int]]) -> Iterator[Error]:
    """Every version of every operator at each of the shapes (T, B, H, D, E)."""
    for operator, versions in VERSIONS.items():
        for sizes in shapes:
            singles, reset = operator_inputs(operator, sizes, device, torch.float32)
            doubles = [single.detach().double().requires_grad_() for single in singles]
            exact = results(versions["naive"], doubles, reset)
            rounding = largest_error(results(versions["naive"], singles, reset), exact)
            for name, run in versions.items():
                if name == "naive":
                    continue
                spoil_free_memory(device)
                what = f"{operator} {name} {'x'.join(map(str, sizes))}"
                found = results(run, singles, reset)
                yield Error(f"{what} float32", largest_error(found, exact), 4.0 * rounding + 2e-6)
                again = results(run, singles, reset)
                changed = max(float((a - b).abs().max()) for a, b in zip(found, again, strict=True))
                if name == "triton":  # the same order of additions each time
                    yield Error(f"{what} repeated", changed, 0.0)
                yield Error(f"{what} float64", largest_error(results(run, doubles, reset), exact), 1e-9)


def check_options(device: torch.device) -> Iterator[Error]:
    """SRWM with what differs from the paper: every version against the plain loop in float64."""
    for sizes in ((50, 8, 8, 16, 16), (7, 3, 2, 24, 40)):
        sources, reset = operator_inputs("srwm", sizes, device, torch.float64)
        for input_softmax, rate_offset in ((False, 0.0), (True, -1.5), (False, 0.5)):
            options = {"input_softmax": input_softmax, "rate_offset": rate_offset}
            versions = {name: partial(run, **options) for name, run in VERSIONS["srwm"].items()}
            exact = results(versions.pop("naive"), sources, reset)
            for name, run in versions.items():
                said = ", ".join(f"{option} {value}" for option, value in options.items())
                what = f"srwm {name} {'x'.join(map(str, sizes))}, {said}"
                yield Error(what, largest_error(results(run, sources, reset), exact), 1e-9)


def check_half_precision(device: torch.device) -> Iterator[Error]:
    """Triton with bfloat16 inputs and a float32 state."""
    for operator, versions in VERSIONS.items():
        sources, reset = operator_inputs(operator, (20, 8, 4, 16, 16), device, torch.float32)
        wide = {1, 2} if operator == "srwm" else {4}
        halves = [
            source if index in wide else source.detach().bfloat16().requires_grad_()
            for index, source in enumerate(sources)
        ]
        exact = results(
            versions["naive"], [half.detach().double().requires_grad_() for half in halves], reset
        )
        error = largest_error(results(versions["triton"], halves, reset), exact)
        yield Error(f"{operator} triton bfloat16 inputs", error, 1e-2)
