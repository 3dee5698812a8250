"""Run the Triton versions of the operators as on a GPU, up to the launch: kernels are compiled, but nothing runs them.

    python tests/policies/ops/compile_kernels.py

Prints the name of each kernel at its launch. A process of its own, because Triton either compiles or interprets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
import triton
from triton.backends.compiler import GPUTarget

from policies.ops.deltanet import deltanet_triton
from policies.ops.srwm import srwm_triton


class _Utils:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 << 10}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[object, ...]:
        assert binary
        return object(), name, 0, 0, 1024


class _Launcher:
    def __init__(self, source: Any, metadata: Any) -> None:
        self._name = metadata.name

    def __call__(self, *arguments: object) -> None:
        print(self._name)


class NoGpu:
    """What Triton asks of a driver, for an H200 that is not there."""

    utils = _Utils()
    launcher_cls = _Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def srwm_inputs(steps: int, heads: int, width: int, output: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """x in `dtype`; w0 and shift in float32."""
    columns = output + 2 * width + 4
    return [
        torch.randn(steps, 2, heads, width, dtype=dtype).requires_grad_(),
        torch.randn(heads, width, columns).requires_grad_(),
        torch.randn(2, heads, width, columns),
    ]


def deltanet_inputs(
    steps: int, heads: int, width: int, output: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """q, k, v, beta in `dtype`; the memory in float32."""
    program = torch.randn(steps, 2, heads, 2 * width + output + 1, dtype=dtype).requires_grad_()
    q, k, v, beta = program.split([width, width, output, 1], dim=-1)
    return [q, k, v, beta.squeeze(-1), torch.randn(2, heads, width, output)]


def main() -> None:
    triton.runtime.driver.set_active(NoGpu())
    operators: list[tuple[Callable[..., Any], Callable[..., list[torch.Tensor]]]] = [
        (srwm_triton, srwm_inputs),
        (deltanet_triton, deltanet_inputs),
    ]
    for run, inputs in operators:
        for steps, heads, width, output, dtype in (
            (50, 8, 16, 16, torch.float32),
            (7, 1, 5, 49, torch.bfloat16),
        ):
            y, state = run(
                *inputs(steps, heads, width, output, dtype), torch.zeros(steps, 2, dtype=torch.bool)
            )
            (y.sum() + state.sum()).backward()
        with torch.no_grad():
            run(*inputs(1, 8, 16, 16, torch.float32), torch.zeros(1, 2, dtype=torch.bool))
    # SRWM with its options.
    sources = srwm_inputs(50, 8, 16, 16, torch.float32)
    y, state = srwm_triton(*sources, torch.zeros(50, 2, dtype=torch.bool), False, -1.5)
    (y.sum() + state.sum()).backward()


if __name__ == "__main__":
    main()
