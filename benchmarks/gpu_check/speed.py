"""How fast are operators, acting and learning on this GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu_check.inputs import NUM_ACTIONS, VERSIONS, Operator, frames, make_policy, operator_inputs
from benchmarks.gpu_check.timing import as_graph, longest_kernels, milliseconds
from policies import Policy, State

STEPS = 50
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
    actions = torch.randint(NUM_ACTIONS, (STEPS, batch), device=device)
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


def profile_policy(device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """The longest kernels of one acting step and one gradient of the paper's network."""
    policy = make_policy("srwm", "bfloat16", device)
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
