"""The Triton kernels against the plain loops: in Triton's interpreter here, compiled where there is a GPU.

The interpreter takes milliseconds for each step of each head, so sizes are small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from policies.ops import operator as shared
from policies.ops.deltanet import DELTANET, deltanet
from policies.ops.operator import Operator
from policies.ops.srwm import SRWM, srwm

pytest.importorskip("triton", reason="Triton exists for Linux only")

# What the interpreters of older versions of Triton do to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPERATORS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"srwm": srwm, "deltanet": deltanet}
BOTH = sorted(OPERATORS)


class Sizes(NamedTuple):
    steps: int
    batch: int
    heads: int
    width: int
    output: int


def make_inputs(
    operator: str, sizes: Sizes, seed: int = 0, dtype: torch.dtype = torch.float64, resets: float = 0.25
) -> tuple[list[Tensor], Tensor]:
    """What gradient flows to, and the resets."""
    steps, batch, heads, width, output = sizes
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    if operator == "srwm":
        columns = output + 2 * width + 4
        sources = [
            randn(steps, batch, heads, width),
            randn(heads, width, columns),
            0.5 * randn(batch, heads, width, columns),
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
    return [source.to(DEVICE, dtype).requires_grad_() for source in sources], reset.to(DEVICE)


def loss_of(outputs: Sequence[Tensor]) -> Tensor:
    """A scalar in which every output counts with its own weight."""
    generator = torch.Generator().manual_seed(99)
    terms = []
    for output in outputs:
        weights = torch.randn(output.shape, dtype=torch.float64, generator=generator).to(DEVICE)
        terms.append((output.double() * weights).sum())
    return torch.stack(terms).sum()


def results(
    operator: str, implementation: str, sources: Sequence[Tensor], reset: Tensor, **options: Any
) -> list[Tensor]:
    """Outputs, and the gradients of all sources."""
    outputs = OPERATORS[operator](*sources, reset, implementation=implementation, **options)
    return [*outputs, *torch.autograd.grad(loss_of(outputs), sources, materialize_grads=True)]


def assert_equal_to_naive(operator: str, sources: Sequence[Tensor], reset: Tensor, **options: Any) -> None:
    expected = results(operator, "naive", sources, reset, **options)
    actual = results(operator, "triton", sources, reset, **options)
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("operator", BOTH)
@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(1, 1, 1, 1, 1),
        Sizes(7, 2, 1, 4, 4),
        Sizes(5, 1, 2, 5, 9),
        Sizes(4, 2, 2, 3, 2),
        Sizes(2, 1, 1, 17, 33),
    ],
    ids=str,
)
def test_values_state_and_gradients(operator: str, sizes: Sizes) -> None:
    assert_equal_to_naive(operator, *make_inputs(operator, sizes))


@pytest.mark.parametrize(
    "options", [{"input_softmax": False}, {"rate_offset": -1.5}, {"input_softmax": False, "rate_offset": 0.7}]
)
@pytest.mark.parametrize("sizes", [Sizes(4, 2, 1, 4, 4), Sizes(3, 1, 2, 5, 9)], ids=str)
def test_what_differs_from_the_paper(sizes: Sizes, options: dict[str, Any]) -> None:
    assert_equal_to_naive("srwm", *make_inputs("srwm", sizes), **options)


@pytest.mark.parametrize("operator", BOTH)
@settings(max_examples=6)
@given(data=st.data())
def test_any_sizes_and_resets(operator: str, data: st.DataObject) -> None:
    steps, batch = data.draw(st.integers(1, 4), "steps"), data.draw(st.integers(1, 2), "batch")
    width, output = data.draw(st.integers(1, 7), "width"), data.draw(st.integers(1, 9), "output")
    sources, reset = make_inputs(
        operator, Sizes(steps, batch, 1, width, output), data.draw(st.integers(0, 9), "seed")
    )
    flags = data.draw(st.lists(st.booleans(), min_size=reset.numel(), max_size=reset.numel()), "resets")
    reset.copy_(torch.tensor(flags).view_as(reset))
    assert_equal_to_naive(operator, sources, reset)


@pytest.mark.parametrize("operator", BOTH)
@pytest.mark.parametrize("resets", [0.0, 1.0])
def test_no_reset_and_a_reset_before_every_step(operator: str, resets: float) -> None:
    assert_equal_to_naive(operator, *make_inputs(operator, Sizes(4, 1, 1, 4, 4), resets=resets))


@pytest.mark.parametrize("operator", BOTH)
def test_steps_one_by_one_equal_one_call(operator: str) -> None:
    sources, reset = make_inputs(operator, Sizes(5, 2, 1, 4, 6))
    run = OPERATORS[operator]
    in_time, state_index = ([0], 2) if operator == "srwm" else ([0, 1, 2, 3], 4)
    with torch.no_grad():
        whole, last = run(*sources, reset, implementation="triton")
        state, outputs = sources[state_index], []
        for t in range(5):
            step = [source[t : t + 1] if index in in_time else source for index, source in enumerate(sources)]
            step[state_index] = state
            y, state = run(*step, reset[t : t + 1], implementation="triton")
            outputs.append(y)
    assert whole.grad_fn is None
    torch.testing.assert_close(torch.cat(outputs), whole, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(state, last, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("operator", BOTH)
def test_values_are_the_same_with_and_without_gradient(operator: str) -> None:
    sources, reset = make_inputs(operator, Sizes(4, 2, 1, 4, 5), dtype=torch.float32)
    run = OPERATORS[operator]
    before = [source.detach().clone() for source in sources]
    outputs = run(*sources, reset, implementation="triton")
    kept = [output.detach().clone() for output in outputs]
    torch.autograd.grad(loss_of(outputs), sources)
    with torch.inference_mode():
        plain = run(*sources, reset, implementation="triton")
    for got, wanted in zip([*outputs, *sources], [*kept, *before], strict=True):
        assert torch.equal(got, wanted)
    for got, wanted in zip(plain, kept, strict=True):  # compiled differently
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("operator", BOTH)
def test_memory_of_any_layout(operator: str) -> None:
    sources, reset = make_inputs(operator, Sizes(3, 2, 2, 4, 5))
    strange = []
    for source in sources:
        turned = source.detach().transpose(0, 1).contiguous().transpose(0, 1)  # another order in memory
        spread = torch.stack([turned, torch.full_like(turned, torch.nan)], dim=-1)[..., 0]  # with gaps
        strange.append(spread.requires_grad_())
    strange_reset = reset.t().contiguous().t()
    assert not any(source.is_contiguous() for source in strange)
    assert_equal_to_naive(operator, strange, strange_reset)


@pytest.mark.parametrize("operator", BOTH)
def test_gradients_of_any_layout(operator: str) -> None:
    sources, reset = make_inputs(operator, Sizes(3, 2, 2, 4, 5))
    gradients = []
    for implementation in ("naive", "triton"):
        y, state = OPERATORS[operator](*sources, reset, implementation=implementation)
        # The gradient of a sum is one number spread over all outputs; the other has its own order in memory.
        other = torch.linspace(-1.0, 1.0, state.numel(), dtype=state.dtype, device=DEVICE).view(
            state.shape[::-1]
        )
        gradients.append(
            torch.autograd.grad(
                (y, state), sources, (torch.ones(()).to(y).expand_as(y), other.permute(3, 2, 1, 0))
            )
        )
    for got, wanted in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("operator", BOTH)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(operator: str, dtype: torch.dtype) -> None:
    """Only inputs and outputs are rounded: the state carried on and its gradient stay float32."""
    sources, reset = make_inputs(operator, Sizes(6, 1, 1, 4, 4), dtype=torch.float32)
    state_index = 2 if operator == "srwm" else 4
    wide = {state_index, 1} if operator == "srwm" else {state_index}
    halves = [
        source if index in wide else source.detach().to(dtype).requires_grad_()
        for index, source in enumerate(sources)
    ]
    y, state, *gradients = results(operator, "triton", halves, reset)
    assert y.dtype is dtype
    assert state.dtype is torch.float32
    assert [gradient.dtype for gradient in gradients] == [half.dtype for half in halves]
    exact = [half.detach().float().requires_grad_() for half in halves]
    wanted_y, wanted_state = OPERATORS[operator](*exact, reset, implementation="naive")
    wanted_gradients = torch.autograd.grad(loss_of((wanted_y.to(dtype), wanted_state)), exact)
    torch.testing.assert_close(state, wanted_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.float(), wanted_y, rtol=1e-2, atol=1e-2)
    for got, wanted in zip(gradients, wanted_gradients, strict=True):
        tolerance = 1e-5 if got.dtype is torch.float32 else 1e-2
        torch.testing.assert_close(got.float(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("operator", BOTH)
def test_long_sequences_are_as_exact_as_naive_ones(operator: str) -> None:
    sizes = Sizes(48, 1, 1, 16, 16)
    found = {}
    for implementation, dtype in (
        ("naive", torch.float64),
        ("naive", torch.float32),
        ("triton", torch.float32),
    ):
        sources, reset = make_inputs(operator, sizes, dtype=dtype, resets=0.0)
        if operator == "srwm":  # the layer's own scale
            sources[1] = (sources[1].detach() / 4.0).requires_grad_()
            sources[2] = (sources[2].detach() / 4.0).requires_grad_()
        reset[30] = True
        found[implementation, dtype] = [
            tensor.double() for tensor in results(operator, implementation, sources, reset)
        ]
    exact, naive, triton = found.values()
    for wanted, by_naive, by_triton in zip(exact, naive, triton, strict=True):
        assert (by_triton - wanted).norm() < 3.0 * (by_naive - wanted).norm() + 2e-6 * wanted.norm()


@pytest.mark.parametrize("operator", BOTH)
@pytest.mark.parametrize("wanted", [0, 1])
def test_one_output_alone_and_the_gradient_of_one_input_alone(operator: str, wanted: int) -> None:
    sources, reset = make_inputs(operator, Sizes(2, 1, 1, 4, 5), resets=0.0)
    for trained in sources:
        mixed = [source if source is trained else source.detach() for source in sources]
        gradients = []
        for implementation in ("naive", "triton"):
            outputs = OPERATORS[operator](*mixed, reset, implementation=implementation)
            loss = loss_of([outputs[wanted]])
            if not loss.requires_grad:
                gradients.append(torch.zeros_like(trained))
                continue
            gradients.append(torch.autograd.grad(loss, trained, materialize_grads=True)[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("operator", BOTH)
def test_no_streams(operator: str) -> None:
    sources, reset = make_inputs(operator, Sizes(3, 0, 2, 4, 5))
    y, state, *gradients = results(operator, "triton", sources, reset)
    assert y.shape == (3, 0, 2, 5)
    assert state.shape[0] == 0
    assert [gradient.shape for gradient in gradients] == [source.shape for source in sources]
    assert not any(gradient.any() for gradient in gradients)


def run_small(operator: str, implementation: str = "triton", width: int = 4) -> None:
    sources, reset = make_inputs(operator, Sizes(1, 1, 1, width, 4))
    OPERATORS[operator](*sources, reset, implementation=implementation)


@pytest.mark.parametrize("operator", BOTH)
@pytest.mark.skipif(DEVICE.type == "cuda", reason="about machines without a GPU")
def test_a_cpu_needs_the_interpreter(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(UserError, match=r"triton needs a CUDA device \(or TRITON_INTERPRET=1\)"):
        run_small(operator)
    run_small(operator, "auto")


@pytest.mark.parametrize("operator", BOTH)
def test_where_triton_is_not_installed(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "triton_available", lambda: False)
    with pytest.raises(UserError, match="triton is not installed"):
        run_small(operator)
    run_small(operator, "auto")


@pytest.mark.parametrize("operator", BOTH)
def test_heads_too_wide_for_the_kernels(operator: str) -> None:
    with pytest.raises(UserError, match="up to 64 wide"):
        run_small(operator, width=65)
    run_small(operator, "auto", width=65)


@pytest.mark.parametrize("operator", [SRWM, DELTANET], ids=lambda operator: operator.name)
def test_auto_means_triton_on_a_gpu_only(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = operator.choose
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for steps in (1, 50):
        assert choose(gpu, steps) == choose(gpu, steps, 64, 193) == "triton"
        assert choose(cpu, steps) != "triton"
        assert choose(gpu, steps, 65, 65) != "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # far slower than the plain loop
    assert choose(gpu, 50) != "triton"
    assert choose(cpu, 50) != "triton"
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(shared, "triton_available", lambda: False)
    assert choose(gpu, 50) != "triton"


def test_acting_writes_nothing_down_for_a_backward_pass() -> None:
    trained = torch.zeros(1, requires_grad=True)
    assert shared.wants_gradient(torch.zeros(1), trained)
    assert not shared.wants_gradient(torch.zeros(1))
    with torch.no_grad():
        assert not shared.wants_gradient(trained)


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """The interpreter takes what the compiler refuses; the compiler needs no GPU."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    launches = done.stdout.split()
    assert launches.count("_forward_kernel") == 7
    assert launches.count("_backward_kernel") == 5
