"""Is everything right and fast on this GPU: all of it in one call of a few minutes.

    python -m benchmarks.gpu_check --out DIR

First every version of every operator against the plain loop in float64: values, carried state and gradients of all
inputs, with resets, and twice with the same result. Then times, by the device's own events: the operators against the
plain loop and against single steps, and one acting step and one learner update of the paper's network, launched
kernel by kernel and as a CUDA graph. Prints one table, and writes DIR/gpu_check.json.

Exit code 0: all versions are right. 1: one is not. 2: there is no GPU. Needs no more than torch and Triton.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from policies import Policy, State, policy_config
from policies.ops import OPERATORS

IMAGE_SHAPE = (64, 64, 3)
ACTIONS = 15
STEPS = 50
Operator = Callable[..., tuple[Tensor, Tensor]]
VERSIONS: dict[str, Mapping[str, Operator]] = {
    name: operator.versions for name, operator in OPERATORS.items()
}
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
TIMED = [(50, 32, 8, 16, 16), (50, 512, 8, 16, 16)]

# Feed-forward: what the network costs without a core.
POLICIES = [("srwm", "float32")] + [
    (core, "bfloat16") for core in ("srwm", "sr_delta", "deltanet", "feedforward")
]


@dataclass(frozen=True)
class Line:
    """One line of the table: a time, and what it is a ratio to.

    Attributes:
        name: what was measured.
        milliseconds: median time.
        against: what `ratio` is to ("" for nothing).
        ratio: times as fast as `against`.
        aim: what the project wants `ratio` to be at least; None where it wants nothing.
        facts: further numbers by name with unit.
    """

    name: str
    milliseconds: float
    against: str = ""
    ratio: float | None = None
    aim: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


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


def milliseconds(run: Callable[[], object], device: torch.device, budget: float = 1.0) -> float:
    """Median time of one call, after three that are not counted; about `budget` seconds of calls."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    calls = max(5, min(200, int(budget / (time.perf_counter() - began))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize(device)
    times: list[float] = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
    return statistics.median(times)


def as_graph(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run` as a CUDA graph, which launches all of its kernels at once."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_rate(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.randn(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / (1e-3 * milliseconds(lambda: target.copy_(source), device))


def single_steps(operator: str, run: Operator, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The whole sequence, one call for each step."""
    *sources, reset = inputs
    state_index, outputs = (2 if operator == "srwm" else 4), []
    in_time = {0} if operator == "srwm" else {0, 1, 2, 3}
    state = sources[state_index]
    for t in range(len(reset)):
        step = [source[t : t + 1] if index in in_time else source for index, source in enumerate(sources)]
        step[state_index] = state
        y, state = run(*step, reset[t : t + 1])
        outputs.append(y)
    return torch.cat(outputs), state


def least_bytes(operator: str, sizes: Sequence[int]) -> float:
    """What the Triton version writes forward and reads backward, in bytes: nearly all that it moves."""
    steps, batch, heads, width, output = sizes
    matrix = width * (output + 2 * width + 4) if operator == "srwm" else width * output
    vectors = 5 * width + output + 8 if operator == "srwm" else 3 * width + 3 * output
    return 2.0 * 4 * steps * batch * heads * (matrix + vectors)


def _call(run: Operator, sources: Sequence[Tensor], reset: Tensor, both: bool) -> Callable[[], None]:
    """Forward without gradient; or `both`, forward and backward."""

    def forward() -> None:
        with torch.no_grad():
            run(*sources, reset)

    def forward_and_backward() -> None:
        y, state = run(*sources, reset)
        torch.autograd.grad((y, state), sources, (torch.ones_like(y), torch.ones_like(state)))

    return forward_and_backward if both else forward


def time_operators(
    device: torch.device, shapes: Sequence[Sequence[int]], rate: float | None = None
) -> Iterator[Line]:
    """Forward without gradient, and forward and backward, of each version.

    `rate`: bytes a second that the device can move, for the floor under the Triton version's time.
    """
    for operator, versions in VERSIONS.items():
        steps = partial(single_steps, operator, versions["triton"])
        for sizes in shapes:
            sources, reset = operator_inputs(operator, sizes, device, torch.float32)
            for both in (False, True):
                name = f"{operator} T {sizes[0]} B {sizes[1]} {sizes[2]} x {sizes[3]}, "
                name += "forward and backward: " if both else "forward: "
                calls = {version: _call(run, sources, reset, both) for version, run in versions.items()}
                calls["single steps"] = _call(steps, sources, reset, both)
                times = {version: milliseconds(call, device) for version, call in calls.items()}
                if device.type == "cuda":  # without what the host needs for launching
                    for version in ("triton", "single steps"):
                        times[f"{version}, CUDA graph"] = milliseconds(
                            as_graph(calls[version], device), device
                        )
                for version, spent in times.items():
                    if version == "triton":
                        continue
                    yield Line(name + version, spent, "naive", times["naive"] / spent)
                aims = (20.0, 5.0) if both and operator == "srwm" else (None, None)
                facts = (
                    {"ms for its bytes": 1e3 * least_bytes(operator, sizes) / rate} if both and rate else {}
                )
                for other, aim in zip(("naive", "single steps"), aims, strict=True):
                    yield Line(
                        f"{name}triton", times["triton"], other, times[other] / times["triton"], aim, facts
                    )


def frames(steps: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random images, last rewards and episode starts."""
    return (
        torch.randint(256, (steps, batch, *IMAGE_SHAPE), dtype=torch.uint8, device=device),
        torch.rand(steps, batch, 1, device=device),
        torch.rand(steps, batch, device=device) < 0.01,
    )


def time_acting(policy: Policy, label: str, batch: int, device: torch.device) -> Iterator[Line]:
    """One step of `batch` environments, and as a graph."""
    rgb, reward, start = frames(1, batch, device)
    state = policy.initial_state(batch)

    def step() -> None:
        with torch.no_grad():
            policy(rgb, reward, state, start)

    eager = milliseconds(step, device)
    name = f"acting step of {batch}, {label}"
    yield Line(name, eager, facts={"steps/s": 1e3 * batch / eager})
    if device.type == "cuda":
        replayed = milliseconds(as_graph(step, device), device)
        yield Line(
            f"{name}, CUDA graph", replayed, name, eager / replayed, None, {"steps/s": 1e3 * batch / replayed}
        )
    for spent, what in _project_graph(policy, rgb, reward, state, start, device):
        yield Line(f"{name}, {what}", spent, name, eager / spent, None, {"steps/s": 1e3 * batch / spent})


def _project_graph(
    policy: Policy, rgb: Tensor, reward: Tensor, state: State, start: Tensor, device: torch.device
) -> Iterator[tuple[float, str]]:
    """The graph that agents act with, its copies included; nothing where their libraries are not installed."""
    if device.type != "cuda":
        return
    try:
        from agents.acting import StepGraph
    except ImportError as error:
        print(f"left out the agents' own acting graph: {error}", file=sys.stderr)
        return
    graph = StepGraph(policy, rgb, reward, state, start)
    yield milliseconds(lambda: graph(rgb, reward, state, start), device), "the agents' graph"


def time_learning(policy: Policy, label: str, batch: int, device: torch.device) -> Iterator[Line]:
    """One update on `batch` unrolls: an actor-critic loss, its gradient, RMSProp; and the gradient as a graph."""
    rgb, reward, start = frames(STEPS + 1, batch, device)
    state = policy.initial_state(batch)
    actions = torch.randint(ACTIONS, (STEPS, batch), device=device)
    targets = torch.randn(STEPS, batch, device=device)
    optimizer = torch.optim.RMSprop(policy.parameters(), 6e-4, alpha=0.99, eps=0.01)

    def gradient() -> None:
        output = policy(rgb, reward, state, start)
        log_probs = F.log_softmax(output.logits[:-1], dim=-1)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        advantages = targets - output.value[:-1]
        entropy = -(log_probs.exp() * log_probs).sum()
        loss = -(chosen * advantages.detach()).sum() + 0.5 * advantages.square().sum() - 0.01 * entropy
        optimizer.zero_grad(set_to_none=False)
        loss.backward()

    def update() -> None:
        gradient()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 40.0)
        optimizer.step()

    def forward() -> None:
        policy(rgb, reward, state, start)

    name = f"update on {batch} x {STEPS}, {label}"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    eager = milliseconds(update, device)
    facts = {"steps/s": 1e3 * batch * STEPS / eager}
    if device.type == "cuda":
        facts["peak GiB"] = torch.cuda.max_memory_allocated(device) / (1 << 30)
    yield Line(name, eager, facts=facts)
    only = milliseconds(lambda: policy.encoder(rgb.flatten(0, 1)).sum().backward(), device)
    yield Line(f"{name}: encoder alone, forward and backward", only, "the whole update", eager / only)
    yield Line(f"{name}: forward alone", milliseconds(forward, device))
    if device.type == "cuda":
        plain = milliseconds(gradient, device)
        replayed = milliseconds(as_graph(gradient, device), device)
        yield Line(f"{name}: gradient", plain)
        yield Line(f"{name}: gradient, CUDA graph", replayed, "kernel by kernel", plain / replayed)


def longest_kernels(run: Callable[[], object], device: torch.device, count: int = 12) -> list[dict[str, Any]]:
    """Where the device's time of one call goes: kernels by total time."""
    run()
    torch.cuda.synchronize(device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize(device)
    rows = [
        {"kernel": row.key[:90], "calls": row.count, "microseconds": row.self_device_time_total}
        for row in profile.key_averages()
        if row.self_device_time_total > 0 and str(row.device_type).endswith("CUDA")
    ]
    return sorted(rows, key=lambda row: -float(row["microseconds"]))[:count]


def profile_policy(device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """The longest kernels of one acting step and one gradient of the paper's network."""
    policy = _policy("srwm", "bfloat16", device)
    rgb, reward, start = frames(STEPS, 32, device)
    state = policy.initial_state(32)

    def act() -> None:
        with torch.no_grad():
            policy(rgb[:1], reward[:1], state, start[:1])

    def learn() -> None:
        output = policy(rgb, reward, state, start)
        (output.logits.square().sum() + output.value.square().sum()).backward()

    return {
        "acting step of 32": longest_kernels(act, device),
        "gradient of 32 x 50": longest_kernels(learn, device),
    }


def _policy(core: str, precision: str, device: torch.device) -> Policy:
    torch.manual_seed(0)
    policy = Policy(policy_config(core, precision=precision), IMAGE_SHAPE, ACTIONS)
    return policy.to(device)


class Report:
    """Prints what was found as it is found, and keeps it for the file."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self.errors: list[Error] = []
        self.lines: list[Line] = []
        self.profile: dict[str, list[dict[str, Any]]] = {}
        self.failures: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """One part of the check; when it breaks off, the others still run."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{name} broke off: {type(error).__name__}: {error}")
        self._write()

    def add_errors(self, errors: Iterable[Error]) -> None:
        """Largest errors, those that are too large marked."""
        for error in errors:
            self.errors.append(error)
            mark = "" if error.right else "   WRONG"
            print(
                f"{error.what:<44} error {error.largest:9.2e}  allowed {error.allowed:9.2e}{mark}", flush=True
            )

    def add_lines(self, lines: Iterable[Line]) -> None:
        """The table of times."""
        for line in lines:
            self.lines.append(line)
            ratio = "" if line.ratio is None else f"{line.ratio:8.2f} x {line.against}"
            if line.ratio is not None and line.aim is not None:
                ratio += f" (aim {line.aim:g}: {'reached' if line.ratio >= line.aim else 'missed'})"
            facts = ", ".join(f"{name} {value:,.4g}" for name, value in line.facts.items())
            print(f"{line.name:<62} {line.milliseconds:10.3f} ms {ratio:<40} {facts}".rstrip(), flush=True)

    def add_profile(self, profile: dict[str, list[dict[str, Any]]]) -> None:
        """The kernels that take longest."""
        self.profile = profile
        for part, rows in profile.items():
            print(f"longest kernels of the {part}:")
            for row in rows:
                print(f"{row['microseconds']:10.1f} us {row['calls']:5d} x {row['kernel']}")

    def problems(self) -> list[str]:
        """What is wrong, in a line each."""
        wrong = [f"wrong: {error.what}" for error in self.errors if not error.right]
        return self.failures + wrong

    def _write(self) -> None:
        if self._out is None:
            return
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.gpu_check", *sys.argv[1:]]),
            "machine": {**describe_machine(), "triton": metadata.version("triton")},
            "errors": [asdict(error) for error in self.errors],
            "times": [asdict(line) for line in self.lines],
            "longest kernels": self.profile,
            "problems": self.problems(),
        }
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n")


def check(device: torch.device, out: Path | None, quick: bool = False) -> int:
    """All of it; returns the exit code."""
    report = Report(out)
    checked, timed = (CHECKED[:2], TIMED[:1]) if quick else (CHECKED, TIMED)
    acting, learning = ((66,), (32,)) if quick else ((66, 512), (32, 256))
    with report.part("operators"):
        report.add_errors(check_operators(device, checked))
    with report.part("half precision"):
        report.add_errors(check_half_precision(device))
    with report.part("times of operators"):
        report.add_lines(time_operators(device, timed, copy_rate(device)))
    for core, precision in POLICIES:
        label, policy = f"{core} {precision}", _policy(core, precision, device)
        for batch in acting:
            with report.part(f"acting of {label}"):
                report.add_lines(time_acting(policy, label, batch, device))
        for batch in learning:
            with report.part(f"learning of {label}"):
                report.add_lines(time_learning(policy, label, batch, device))
    with report.part("profile"):
        report.add_profile(profile_policy(device))
    for problem in report.problems():
        print(problem, file=sys.stderr)
    return 1 if report.problems() else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="directory for gpu_check.json")
    parser.add_argument("--quick", action="store_true", help="fewer shapes and sizes")
    arguments = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("error: gpu_check needs a CUDA device, and torch finds none on this machine", file=sys.stderr)
        return 2
    return check(torch.device("cuda"), arguments.out, arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
