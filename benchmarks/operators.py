"""Every version of the sequence operators against the plain loop: python -m benchmarks.operators [--json FILE].

On a machine with a GPU its versions follow, there also against as many launches of single steps as a sequence has.
SRWM's options are measured with a whole core, against the published one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.figures import Figure, Part, best_seconds, main
from policies import State, core_config
from policies.cores.base import Core
from policies.ops import OPERATORS
from policies.ops.operator import triton_problem
from policies.registry import build_core

MEASURED = ("srwm", "deltanet")
RESETS = 0.005
"""Probability that an environment is reset before a step: episodes of 200 steps."""

AIMS = {("srwm", "fused"): 2.0, ("deltanet", "chunk"): 5.0}
"""What the fast versions should reach on a CPU, forward and backward, at `REFERENCE`."""


CORE_AIM = 0.97
"""The recommended SRWM should be as fast as the published one, within 3 %."""

FEATURES = 257
"""What the paper's encoder and the last reward give a core."""


class Shape(NamedTuple):
    """Steps T, batch B, heads H, width D of a head and of its output."""

    steps: int
    batch: int
    heads: int = 8
    width: int = 16

    def __str__(self) -> str:
        return f"T {self.steps}, B {self.batch}, {self.heads} x {self.width}"


REFERENCE = Shape(50, 32)
SEQUENCES = [REFERENCE, Shape(51, 22), Shape(256, 8), Shape(50, 32, 4, 32), Shape(50, 32, 2, 64)]
SINGLE_STEPS = [Shape(1, 33), Shape(1, 66)]
ON_GPU = [REFERENCE, Shape(50, 512)]


class Case(NamedTuple):
    """An operator's arguments: what gradient flows to, and the resets; and gradients of its outputs."""

    operator: str
    sources: tuple[Tensor, ...]
    reset: Tensor
    gradients: tuple[Tensor, ...]

    def run(self, version: str, backward: bool) -> tuple[Tensor, ...]:
        """Outputs, and gradients if asked for."""
        call = OPERATORS[self.operator].versions[version]
        if not backward:
            with torch.no_grad():
                outputs: tuple[Tensor, ...] = call(*self.sources, self.reset)
            return outputs
        outputs = call(*self.sources, self.reset)
        return *outputs, *torch.autograd.grad(outputs, self.sources, self.gradients)

    def run_by_single_steps(self, version: str, backward: bool) -> None:
        """The same through a call for each step, as when only a kernel for one step exists."""
        call = OPERATORS[self.operator].versions[version]
        with torch.set_grad_enabled(backward):
            weights = self.sources[1:2] if self.operator == "srwm" else ()
            sequences = self.sources[:1] if self.operator == "srwm" else self.sources[:4]
            state, outputs = self.sources[-1], []
            for step in zip(*(tensor.split(1) for tensor in (*sequences, self.reset)), strict=True):
                y, state = call(*step[:-1], *weights, state, step[-1])
                outputs.append(y)
            if backward:
                torch.autograd.grad((torch.cat(outputs), state), self.sources, self.gradients)


def make_case(
    operator: str,
    shape: Shape,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    resets: float = RESETS,
) -> Case:
    """Random arguments at the scale that the layers have them in."""
    steps, batch, heads, width = shape
    generator = torch.Generator().manual_seed(0)

    def randn(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=dtype)

    if operator == "srwm":
        columns = 3 * width + 4
        matrices = (randn(heads, width, columns) * width**-0.5, randn(batch, heads, width, columns) * 0.05)
        sources: tuple[Tensor, ...] = (randn(steps, batch, heads, width), *matrices)
    else:
        q, k = (randn(steps, batch, heads, width).softmax(dim=-1) for _ in range(2))
        v, beta = randn(steps, batch, heads, width), randn(steps, batch, heads).sigmoid()
        sources = (q, k, v, beta, randn(batch, heads, width, width))
    gradients = (randn(steps, batch, heads, width), randn(*sources[-1].shape))
    reset = torch.rand(steps, batch, generator=generator) < resets
    return Case(
        operator,
        tuple(source.to(device).requires_grad_() for source in sources),
        reset.to(device),
        tuple(gradient.to(device) for gradient in gradients),
    )


def versions(operator: str, shape: Shape, device: str) -> list[str]:
    """The versions of an operator that compete with "naive" for this shape on this device."""
    names = [name for name in OPERATORS[operator].versions if name != "naive"]
    # Triton's interpreter shows that kernels are right, and has no speed worth telling.
    if device == "cpu" or triton_problem(torch.device(device), shape.width, shape.width):
        names.remove("triton")
    return names


def compare(
    operator: str, shape: Shape, backward: bool, device: str, repetitions: int, quick: bool = False
) -> list[Figure]:
    """One figure for each version, all measured in turn; if `quick`, for the one that "auto" stands for."""
    case = make_case(operator, shape, device)
    best = OPERATORS[operator].choose(torch.device(device), shape.steps, shape.width, shape.width)
    names = [best] if quick else versions(operator, shape, device)

    def timed(run: Callable[[str, bool], object], name: str) -> Callable[[], None]:
        def part() -> None:
            run(name, backward)
            if device == "cuda":
                torch.cuda.synchronize()

        return part

    parts = {name: timed(case.run, name) for name in ("naive", *names)}
    if device == "cuda":
        single = "triton" if "triton" in names else "naive"
        parts["single steps"] = timed(case.run_by_single_steps, single)
    seconds = best_seconds(parts, repetitions)
    what = _label(operator, shape, backward, device)
    figures = []
    for name in names:
        facts = {f"{part} ms": 1e3 * seconds[part] for part in ("naive", name)}
        known = backward and shape == REFERENCE
        aim = 20.0 if device == "cuda" and operator == "srwm" and name == "triton" else None
        aim = AIMS.get((operator, name)) if device == "cpu" else aim
        label = f"{what}: {name}{' (auto)' if name == best else ''}"
        figures.append(
            Figure(label, "naive", seconds["naive"] / seconds[name], aim if known else None, facts=facts)
        )
        if name == "triton":
            ratio = seconds["single steps"] / seconds[name]
            against = f"{shape.steps} single steps"
            facts = {f"{part} ms": 1e3 * seconds[part] for part in ("single steps", name)}
            figures.append(Figure(label, against, ratio, 5.0 if aim and known else None, facts=facts))
    return figures


def make_cores(shape: Shape) -> dict[str, Core]:
    """SRWM as published, as recommended, and with every option that costs anything."""
    sizes: dict[str, Any] = {"width": shape.heads * shape.width, "heads": shape.heads}
    torch.manual_seed(0)
    return {
        "published": build_core(core_config("srwm", **sizes), FEATURES),
        "srwm_sharp": build_core(core_config("srwm_sharp", **sizes), FEATURES),
        "srwm_sharp, learned sharpness, rate offset": build_core(
            core_config("srwm_sharp", **sizes, learn_sharpness=True, rate_offset=-1.0), FEATURES
        ),
    }


def compare_cores(shape: Shape, backward: bool, repetitions: int) -> list[Figure]:
    """SRWM with options against the published one, all measured in turn, on the CPU, in the processor's own time: a few
    per cent would be lost in what other programs do."""
    cores = make_cores(shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.steps, shape.batch, FEATURES, generator=generator)
    start = torch.rand(shape.steps, shape.batch, generator=generator) < RESETS

    def run(core: Core, state: State) -> None:
        with torch.set_grad_enabled(backward):
            y, _ = core(x, state, start)
            if backward:
                torch.autograd.grad(y.sum(), list(core.parameters()))

    calls = {name: partial(run, core, core.initial_state(shape.batch)) for name, core in cores.items()}
    seconds = best_seconds(calls, repetitions, time.process_time)
    published = seconds.pop("published")
    return [
        Figure(
            f"{_label('SRWM core', shape, backward, 'cpu')}: {name}",
            "the published core",
            published / spent,
            CORE_AIM if name == "srwm_sharp" else None,
            facts={"published ms": 1e3 * published, "ms": 1e3 * spent},
        )
        for name, spent in seconds.items()
    ]


def _label(operator: str, shape: Shape, backward: bool, device: str) -> str:
    return f"{operator}, {shape}, {'forward and backward' if backward else 'forward'}, {device}"


def parts(quick: bool = False) -> list[Part]:
    """Sequences forward and backward and forward alone, single steps forward."""
    cases = [("cpu", shape, True) for shape in (SEQUENCES[:1] if quick else SEQUENCES)]
    if not quick:
        cases += [("cpu", shape, False) for shape in SEQUENCES]
    cases += [("cpu", shape, False) for shape in (SINGLE_STEPS[1:] if quick else SINGLE_STEPS)]
    if torch.cuda.is_available():
        cases += [("cuda", shape, backward) for shape in ON_GPU for backward in (True, False)]
    cores = [
        Part(
            f"operators: {_label('SRWM core', shape, shape.steps > 1, 'cpu')}",
            partial(
                compare_cores,
                *(shape, shape.steps > 1),
                repetitions=(15 if quick else 40) if shape.steps > 1 else 1000,
            ),
        )
        for shape in (REFERENCE, SINGLE_STEPS[0])
    ]
    return cores + [
        Part(
            f"operators: {_label(operator, shape, backward, device)}",
            partial(
                compare,
                *(operator, shape, backward, device),
                repetitions=(15 if quick else 40) if shape.steps > 1 else 300,
                quick=quick,
            ),
        )
        for device, shape, backward in cases
        for operator in MEASURED
    ]


if __name__ == "__main__":
    sys.exit(main("Operators", parts))
