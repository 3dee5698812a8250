"""What every core promises for every reset rule: one call or many, no leaks across resets, gradients."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from policies import CORES, core_config
from policies.cores.base import Core, CoreConfig
from policies.registry import build_core
from policies.resets import State, parse_reset
from small_cores import small_core

FEATURES = 5
NAMES = sorted(CORES)
RECURRENT = [name for name in NAMES if CORES[name].is_recurrent]
RULES = ["episode", "never", "1", "3"]


def make_core(name: str, reset: str = "episode", bptt_span: int | None = None, seed: int = 0) -> Core:
    torch.manual_seed(seed)
    return build_core(small_core(name), FEATURES, parse_reset(reset), bptt_span).double()


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def starts(steps: int, batch: int, probability: float = 0.25, seed: int = 0) -> Tensor:
    return torch.rand(steps, batch, generator=torch.Generator().manual_seed(seed)) < probability


def used_state(core: Core, batch: int) -> State:
    """A state in the middle of things."""
    with torch.no_grad():
        x = randn(4, batch, FEATURES, seed=11)
        return core(x, core.initial_state(batch), torch.zeros(4, batch, dtype=torch.bool))[1]


def assert_same_state(actual: State, expected: State) -> None:
    assert actual.keys() == expected.keys()
    for name in actual:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    steps=st.integers(1, 11),
    cut=st.integers(1, 11),
    probability=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    bptt_span=st.sampled_from([None, 1, 4]),
    seed=st.integers(0, 1000),
)
def test_pieces_equal_the_whole(
    name: str, rule: str, steps: int, cut: int, probability: float, bptt_span: int | None, seed: int
) -> None:
    core = make_core(name, rule, bptt_span)
    x, episode_start = randn(steps, 3, FEATURES, seed=seed), starts(steps, 3, probability, seed)
    first = used_state(core, 3)
    with torch.no_grad():
        whole, last = core(x, first, episode_start)
        for pieces in (x.split(1), x.split(cut)):
            state, outputs, begin = first, [], 0
            for piece in pieces:
                y, state = core(piece, state, episode_start[begin : begin + len(piece)])
                begin += len(piece)
                outputs.append(y)
            torch.testing.assert_close(torch.cat(outputs), whole, rtol=1e-10, atol=1e-12)
            assert_same_state(state, last)
    assert whole.shape == (steps, 3, core.output_size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_gradient_through_pieces_equals_gradient_through_the_whole(name: str, rule: str) -> None:
    core = make_core(name, rule)
    x, episode_start = randn(7, 3, FEATURES).requires_grad_(), starts(7, 3)
    weights = randn(7, 3, core.output_size, seed=5)
    sources = [x, *core.parameters()]
    whole, _ = core(x, core.initial_state(3), episode_start)
    state, outputs = core.initial_state(3), []
    for piece, piece_start in zip(x.split(1), episode_start.split(1), strict=True):
        y, state = core(piece, state, piece_start)
        outputs.append(y)
    expected = torch.autograd.grad((whole * weights).sum(), sources, allow_unused=True)
    actual = torch.autograd.grad((torch.cat(outputs) * weights).sum(), sources, allow_unused=True)
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_environments_do_not_see_each_other(name: str) -> None:
    core = make_core(name)
    x, episode_start = randn(6, 3, FEATURES).requires_grad_(), starts(6, 3)
    y, _ = core(x, core.initial_state(3), episode_start)
    (gradient,) = torch.autograd.grad(y[:, 1].square().sum(), x)
    assert gradient[:, 1].any()
    assert not gradient[:, 0].any()
    assert not gradient[:, 2].any()
    alone, _ = core(x[:, 1:2], core.initial_state(1), episode_start[:, 1:2])
    torch.testing.assert_close(alone, y[:, 1:2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", ["episode", "3"])
@pytest.mark.parametrize("start", [0, 4, 7])
def test_nothing_before_an_episode_start_changes_anything_after_it(name: str, rule: str, start: int) -> None:
    core = make_core(name, rule)
    x = randn(8, 2, FEATURES).requires_grad_()
    state = {key: value.clone() for key, value in used_state(core, 2).items()}
    memory = [value.requires_grad_() for value in state.values() if value.is_floating_point()]
    episode_start = torch.zeros(8, 2, dtype=torch.bool)
    episode_start[start] = True
    y, last = core(x, state, episode_start)
    after = y[start:].square().sum() + sum(v.square().sum() for v in last.values() if v.is_floating_point())
    gradients = torch.autograd.grad(after, [x, *memory], materialize_grads=True)
    assert not gradients[0][:start].any()
    assert gradients[0][start:].any()
    assert not any(gradient.any() for gradient in gradients[1:])

    other_x = torch.cat([randn(start, 2, FEATURES, seed=9), x[start:]])
    other_state = {k: v if k == "age" else torch.randn_like(v) for k, v in state.items()}
    other_y, other_last = core(other_x, other_state, episode_start)
    torch.testing.assert_close(other_y[start:], y[start:], rtol=1e-12, atol=0)
    assert_same_state(other_last, last)


@pytest.mark.parametrize("name", RECURRENT)
def test_gradient_flows_back_through_all_steps(name: str) -> None:
    core = make_core(name)
    x = randn(6, 2, FEATURES).requires_grad_()
    y, _ = core(x, core.initial_state(2), torch.zeros(6, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(y[-1].square().sum(), x)
    assert gradient.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_never_carries_memory_and_gradient_across_episodes(name: str) -> None:
    core = make_core(name, "never")
    x = randn(6, 2, FEATURES).requires_grad_()
    episode_start = torch.zeros(6, 2, dtype=torch.bool)
    y, last = core(x, used_state(core, 2), episode_start)
    episode_start[3] = True
    other_y, other_last = core(x, used_state(core, 2), episode_start)
    assert torch.equal(y, other_y)
    assert_same_state(last, other_last)
    (gradient,) = torch.autograd.grad(y[3:].square().sum(), x)
    assert gradient[:3].any()


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("span", [1, 2, 5])
def test_span_rule_equals_explicit_resets(name: str, span: int) -> None:
    episode_start = starts(17, 4, 0.1)
    explicit = episode_start.clone()
    for b in range(4):
        age = 0
        for t in range(17):
            if explicit[t, b] or age == span:
                explicit[t, b], age = True, 0
            age += 1
    x = randn(17, 4, FEATURES)
    ruled, by_hand = make_core(name, str(span)), make_core(name, "episode")
    expected, expected_state = by_hand(x, by_hand.initial_state(4), explicit)
    actual, state = ruled(x, ruled.initial_state(4), episode_start)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    state.pop("age")
    assert_same_state(state, expected_state)
    plain, _ = by_hand(x, by_hand.initial_state(4), episode_start)
    assert not torch.allclose(plain, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", ["episode", "3"])
def test_every_parameter_gets_a_gradient(name: str, rule: str) -> None:
    core = make_core(name, rule)
    x = randn(5, 4, FEATURES).requires_grad_()
    y, _ = core(x, core.initial_state(4), starts(5, 4))
    (y * randn(*y.shape, seed=3)).sum().backward()
    for parameter_name, parameter in [("x", x), *core.named_parameters()]:
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("bptt_span", [1, 2, 3, 100])
def test_bptt_span_cuts_gradient_and_leaves_values(name: str, bptt_span: int) -> None:
    core, uncut = make_core(name, bptt_span=bptt_span), make_core(name)
    x, episode_start = randn(7, 3, FEATURES).requires_grad_(), starts(7, 3, 0.1)
    weights = randn(7, 3, core.output_size, seed=5)
    state = used_state(core, 3)
    y, last = core(x, state, episode_start)
    plain, plain_last = uncut(x, state, episode_start)
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=0)
    assert_same_state(last, plain_last)

    # By hand: pieces of bptt_span steps, with the state detached in between.
    outputs, memory = [], state
    for piece, piece_start in zip(x.split(bptt_span), episode_start.split(bptt_span), strict=True):
        piece_y, memory = uncut(piece, {k: v.detach() for k, v in memory.items()}, piece_start)
        outputs.append(piece_y)
    sources = [(y, [x, *core.parameters()]), (torch.cat(outputs), [x, *uncut.parameters()])]
    actual, expected = (
        torch.autograd.grad((out * weights).sum(), inputs, materialize_grads=True) for out, inputs in sources
    )
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RECURRENT)
def test_bptt_span_is_counted_from_the_start_of_the_unroll(name: str) -> None:
    core = make_core(name, bptt_span=3)
    x = randn(8, 2, FEATURES).requires_grad_()
    state = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in used_state(core, 2).items()}
    y, _ = core(x, state, torch.zeros(8, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(y[5].square().sum(), x, retain_graph=True)
    assert gradient.flatten(1).any(dim=1).tolist() == [False] * 3 + [True] * 3 + [False] * 2
    memory = [v for v in state.values() if v.is_floating_point()]
    gradients = torch.autograd.grad(y.square().sum(), memory, materialize_grads=True)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_state_is_flat_and_batch_first_and_never_modified(name: str, rule: str) -> None:
    core = make_core(name, rule)
    fresh = core.initial_state(3)
    assert all(value.shape[0] == 3 for value in fresh.values())
    assert bool(fresh) == core.is_recurrent
    x, state = randn(5, 3, FEATURES), used_state(core, 3)
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in fresh.items()
    }
    episode_start = starts(5, 3, 0.5)
    before = [value.clone() for value in (x, episode_start, *state.values())]
    core(x, state, episode_start)[0].sum()
    core.examine(x, state, episode_start)
    for value, copy in zip((x, episode_start, *state.values()), before, strict=True):
        assert torch.equal(value, copy)


@pytest.mark.parametrize("name", NAMES)
def test_initial_parameters_follow_the_seed_alone(name: str) -> None:
    first, second, third = make_core(name), make_core(name), make_core(name, seed=1)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    different = [not torch.equal(a, c) for a, c in zip(first.parameters(), third.parameters(), strict=True)]
    assert any(different) or not different


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 9])
def test_examining_is_running_and_reading_off_the_last_step(name: str, rule: str, steps: int) -> None:
    core = make_core(name, rule)
    x, episode_start = randn(steps, 4, FEATURES), starts(steps, 4)
    first = used_state(core, 4)
    y, last, readings = core.examine(x, first, episode_start)
    with torch.no_grad():
        expected, expected_last = core(x, first, episode_start)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert_same_state(last, expected_last)
    assert bool(readings) == core.self_modifying
    with torch.no_grad():
        state = first if steps == 1 else core(x[:-1], first, episode_start[:-1])[1]
    for env in range(4):
        alone = {key: value[env : env + 1] for key, value in state.items()}
        _, _, single = core.examine(x[-1:, env : env + 1], alone, episode_start[-1:, env : env + 1])
        assert [reading.tag for reading in single] == [reading.tag for reading in readings]
        for reading, one in zip(readings, single, strict=True):
            assert reading.values.shape == (4,)
            assert reading.kind is one.kind
            assert not reading.values.requires_grad
            torch.testing.assert_close(reading.values[env : env + 1], one.values)
    assert len({reading.tag for reading in readings}) == len(readings)


@pytest.mark.parametrize("name", NAMES)
def test_examining_runs_each_module_once(name: str) -> None:
    core, calls = make_core(name), Counter[str]()
    for part, module in core.named_modules():
        module.register_forward_hook(lambda *_, part=part: calls.update([part]))
    core.examine(randn(1, 3, FEATURES), core.initial_state(3), starts(1, 3))
    assert set(calls.values()) <= {1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_written_weights_are_the_memory_of_cores_that_modify_themselves(name: str, rule: str) -> None:
    core = make_core(name, rule)
    state = used_state(core, 3)
    weights = core.written_weights(state)
    assert bool(weights) == core.self_modifying
    assert all(tensor is state[key] and tensor.dim() == 4 for key, tensor in weights.items())
    ruled = set(core.reset_rule.initial_state(3)) if core.is_recurrent else set()
    assert set(core.memory(state)) == set(state) - ruled
    assert set(make_core(name).memory(state)) == set(state) - ruled


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_raise(name: str) -> None:
    core = make_core(name)
    x, episode_start, state = randn(4, 3, FEATURES), starts(4, 3), core.initial_state(3)
    for call in (core, core.examine):
        for dtype in (torch.uint8, torch.float32, torch.int64):
            with pytest.raises(TypeError, match="bool"):
                call(x, state, episode_start.to(dtype))
        for bad_x, bad_start in (
            (x[0], episode_start[0]),
            (x[:0], episode_start[:0]),
            (x[..., 1:], episode_start),
            (x, episode_start[1:]),
            (x, episode_start.t()),
        ):
            with pytest.raises(ValueError, match="must be"):
                call(bad_x, state, bad_start)
        if core.is_recurrent:
            with pytest.raises(ValueError, match="2 environments"):
                call(x, core.initial_state(2), episode_start)
            with pytest.raises(ValueError, match="state"):
                call(x, {}, episode_start)
        else:
            with pytest.raises(ValueError, match="holds nothing"):
                call(x, {"hidden": torch.zeros(3, 1)}, episode_start)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("srwm", {"width": 10, "heads": 4}, "multiple"),
        ("srwm", {"width": 65_544}, "core.width is 65544: give at most 65,536"),
        ("sr_delta", {"layers": 10**9}, "core.layers"),
        ("srwm", {"heads": 0}, "heads"),
        ("deltanet", {"layers": 0}, "layers"),
        ("fake_srwm", {"feedforward": -1}, "feedforward"),
        ("lstm", {"hidden": 0}, "hidden"),
        ("lstm", {"layers": 1.5}, "layers"),
    ],
)
def test_impossible_sizes_are_refused(name: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        core_config(name, **sizes)


def test_configurations_are_plain_and_comparable() -> None:
    for name in NAMES:
        config = core_config(name)
        assert isinstance(config, CoreConfig)
        assert config == core_config(name)
        assert hash(config) == hash(core_config(name))
