"""The layered networks against their equations: one stream, step, layer and head at a time, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from policies import core_config
from policies.cores.base import Core
from policies.cores.srwm import SrwmLayer
from policies.registry import build_core
from policies.resets import parse_reset

FEATURES, WIDTH, HEADS, HIDDEN, LAYERS = 5, 6, 2, 7, 2
D = WIDTH // HEADS
NAMES = ["srwm", "deltanet", "fake_srwm", "sr_delta"]
SIZES = {"width": WIDTH, "heads": HEADS, "feedforward": HIDDEN, "layers": LAYERS}


# Cores with options that differ from those published; SRWM's recommended ones are `srwm_sharp`.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("srwm_sharp", {}),
    ("srwm_sharp", {"learn_sharpness": True, "rate_offset": -1.0}),
    ("srwm", {"layer_norm": True, "sharpness": 0.5, "initial_scale": 2.0}),
    ("srwm", {"input_softmax": False, "rate_offset": 0.5, "unit_key": True}),
    ("sr_delta", {"layer_norm": True, "input_softmax": False, "sharpness": 4.0, "rate_offset": -1.0}),
    ("sr_delta", {"learn_sharpness": True}),
    ("fake_srwm", {"layer_norm": True, "input_softmax": False}),
]


def make_core(
    name: str, reset: str = "episode", bptt_span: int | None = None, options: dict[str, Any] | None = None
) -> Core:
    torch.manual_seed(0)
    config = core_config(name, **SIZES, **(options or {}))
    core = build_core(config, FEATURES, parse_reset(reset), bptt_span).double()
    for parameter in core.parameters():  # away from layer norm's ones and zeros, and from small updates
        parameter.data += 0.3 * torch.randn_like(parameter)
    return core


def softmax(z: Tensor) -> Tensor:
    return z.exp() / z.exp().sum()


def sigmoid(z: Tensor) -> Tensor:
    return 1.0 / (1.0 + (-z).exp())


def feature_map(z: Tensor) -> Tensor:
    features = torch.where(z > 0, z + 1.0, z.clamp(max=0.0).exp())
    return features / (features.sum() + 1e-5)


def layer_norm(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = z - z.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weight + bias


def srwm_head(x: Tensor, w: Tensor, config: Any, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    product = (softmax(x) if config.input_softmax else x) @ w
    out = len(product) - 2 * D - 4
    y, q, k, beta = (
        product[:out],
        product[out : out + D],
        product[out + D : out + 2 * D],
        product[out + 2 * D :],
    )
    beta = sigmoid(beta + config.rate_offset)
    phi_q, phi_k = softmax(sharpness[0] * q), softmax(sharpness[1] * k)
    if config.unit_key:
        phi_k = phi_k.sqrt()
    rate = torch.cat([beta[0].expand(out), beta[1].expand(D), beta[2].expand(D), beta[3].expand(4)])
    return y, w + torch.outer(phi_k, rate * (phi_q @ w - phi_k @ w))


def delta_head(program: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = feature_map(program[:D]), feature_map(program[D : 2 * D]), program[2 * D : 3 * D]
    w = w + sigmoid(program[3 * D]) * torch.outer(k, v - k @ w)
    return q @ w, w


def head_sharpness(p: dict[str, Tensor], layer: int, h: int, config: Any) -> Tensor:
    """Of q and of k."""
    if config.learn_sharpness:
        return p[f"layers.{layer}.log_sharpness"][:, h].exp()
    return torch.full((2,), config.sharpness, dtype=torch.float64)


def in_units_of_addresses(shift: Tensor, sharpness: Tensor) -> Tensor:
    """A head's shift in the equations, as the state holds it: q and k as large as what their softmax is taken of."""
    out = shift.shape[-1] - 2 * D - 4
    factors = [torch.ones(out), sharpness[0].expand(D), sharpness[1].expand(D), torch.ones(4)]
    return shift * torch.cat([factor.double() for factor in factors])


def literal(
    name: str, p: dict[str, Tensor], x: Tensor, state: dict[str, Tensor], reset: Tensor, config: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs (T, B, WIDTH) and new state of the whole network with the parameters `p`."""
    config = config or core_config("srwm")
    name = name.removesuffix("_sharp")
    memory_names = {"srwm": ["shift"], "deltanet": ["fast"], "fake_srwm": [], "sr_delta": ["shift", "fast"]}
    streams: list[Tensor] = []
    memories: dict[str, list[Tensor]] = {key: [] for key in state}
    for b in range(x.shape[1]):
        start: dict[tuple[str, int, int], Tensor] = {}
        weights: dict[tuple[str, int, int], Tensor] = {}
        for layer in range(LAYERS):
            for h in range(HEADS):
                for part in memory_names[name]:
                    memory = state[f"layer{layer}/{part}"][b, h]
                    if part == "shift":
                        sharpness = head_sharpness(p, layer, h, config)
                        memory = in_units_of_addresses(memory, 1.0 / sharpness)
                    fresh = p[f"layers.{layer}.w0"][h] if part == "shift" else torch.zeros_like(memory)
                    start[part, layer, h], weights[part, layer, h] = fresh, fresh + memory
        outputs = []
        for t in range(x.shape[0]):
            if reset[t, b]:
                weights = dict(start)
            a = p["input_linear.weight"] @ x[t, b] + p["input_linear.bias"]
            for layer in range(LAYERS):
                pre, block = f"layers.{layer}", f"blocks.{layer}"
                heads = []
                normed = a
                if name == "deltanet" or config.layer_norm:
                    normed = layer_norm(a, p[f"{pre}.layer_norm.weight"], p[f"{pre}.layer_norm.bias"])
                if name == "deltanet":
                    program = p[f"{pre}.slow_net.weight"] @ normed
                for h in range(HEADS):
                    shift, fast = ("shift", layer, h), ("fast", layer, h)
                    y = normed[h * D : (h + 1) * D]
                    if name == "fake_srwm":
                        y = (softmax(y) if config.input_softmax else y) @ p[f"layers.{layer}.w_y"][h]
                    if name in ("srwm", "sr_delta"):
                        sharpness = head_sharpness(p, layer, h, config)
                        y, weights[shift] = srwm_head(y, weights[shift], config, sharpness)
                    if name == "deltanet":
                        y = program[h * (3 * D + 1) : (h + 1) * (3 * D + 1)]
                    if name in ("deltanet", "sr_delta"):
                        y, weights[fast] = delta_head(y, weights[fast])
                    heads.append(y)
                a = a + p[f"{pre}.out_linear.weight"] @ torch.cat(heads)
                normed = layer_norm(a, p[f"{block}.layer_norm.weight"], p[f"{block}.layer_norm.bias"])
                hidden = (p[f"{block}.linear1.weight"] @ normed + p[f"{block}.linear1.bias"]).clamp(min=0.0)
                a = a + p[f"{block}.linear2.weight"] @ hidden + p[f"{block}.linear2.bias"]
            outputs.append(a)
        streams.append(torch.stack(outputs))
        for key in state:
            layer, part = int(key[len("layer")]), key.split("/")[1]
            moved = [weights[part, layer, h] - start[part, layer, h] for h in range(HEADS)]
            if part == "shift":
                by_head = [head_sharpness(p, layer, h, config) for h in range(HEADS)]
                moved = [in_units_of_addresses(w, s) for w, s in zip(moved, by_head, strict=True)]
            memories[key].append(torch.stack(moved))
    return torch.stack(streams, dim=1), {key: torch.stack(values) for key, values in memories.items()}


def run_inputs(core: Core, steps: int = 6, batch: int = 3) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(steps, batch, FEATURES, dtype=torch.float64, generator=generator).requires_grad_()
    state = {
        key: (0.5 * torch.randn(value.shape, dtype=torch.float64, generator=generator)).requires_grad_()
        for key, value in core.initial_state(batch).items()
    }
    return x, state, torch.rand(steps, batch, generator=generator) < 0.2


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), *VARIANTS], ids=str)
def test_values_state_and_gradients(name: str, options: dict[str, Any]) -> None:
    core = make_core(name, options=options)
    x, state, reset = run_inputs(core)
    assert reset[1:].any()
    assert not reset.all(dim=0).any()
    y, last = core(x, state, reset)
    parameters = dict(core.named_parameters())
    config = core_config(name, **options) if name != "deltanet" else None
    expected_y, expected_last = literal(name, parameters, x, state, reset, config)
    torch.testing.assert_close(y, expected_y, rtol=1e-10, atol=1e-10)
    assert last.keys() == expected_last.keys()
    for key in last:
        torch.testing.assert_close(last[key], expected_last[key], rtol=1e-10, atol=1e-10)
    sources = [x, *state.values(), *parameters.values()]
    actual, expected = (
        torch.autograd.grad((out**3).sum() + sum((v**3).sum() for v in memory.values()), sources)
        for out, memory in ((y, last), (expected_y, expected_last))
    )
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "options"), [("srwm", {}), ("deltanet", {}), ("sr_delta", {}), *VARIANTS[:2]], ids=str
)
def test_gradient_through_the_updates_by_finite_differences(name: str, options: dict[str, Any]) -> None:
    core = make_core(name, options=options)
    _, state, _ = run_inputs(core, 3, 1)
    x = torch.randn(3, 1, FEATURES, dtype=torch.float64)
    reset = torch.zeros(3, 1, dtype=torch.bool)
    names, values = zip(
        *((key, value) for key, value in core.named_parameters() if key.startswith("layers.0")), strict=True
    )

    def run(*parameters: Tensor) -> Tensor:
        changed = dict(zip(names, parameters, strict=True))
        y, last = torch.func.functional_call(
            core, changed, (x, {k: v.detach() for k, v in state.items()}, reset)
        )
        return torch.cat([y.flatten(), *(value.flatten() for value in last.values())])

    assert torch.autograd.gradcheck(run, values)


def w0_gradient_by_block(bptt_span: int | None, steps: int) -> list[Tensor]:
    core = make_core("srwm", bptt_span=bptt_span)
    x = torch.randn(steps, 3, FEATURES, dtype=torch.float64)
    y, _ = core(x, core.initial_state(3), torch.zeros(steps, 3, dtype=torch.bool))
    y.square().sum().backward()
    gradient = core.get_parameter("layers.0.w0").grad
    assert gradient is not None
    y_part, q_part, k_part, beta_part = gradient.split([D, D, D, 4], dim=-1)
    return [y_part, q_part, k_part, *beta_part.unbind(-1)]


def test_every_column_block_of_w0_gets_a_gradient_through_the_unroll() -> None:
    for block in w0_gradient_by_block(bptt_span=None, steps=4):
        assert block.flatten(1).any(dim=1).all()  # in each head


def test_the_published_horizon_leaves_all_but_the_output_columns_untrained() -> None:
    output, *others = w0_gradient_by_block(bptt_span=1, steps=4)
    assert output.any()
    assert not any(block.any() for block in others)


def test_a_new_w0_takes_effect_at_once_and_keeps_the_shift() -> None:
    core = make_core("srwm")
    x, state, reset = run_inputs(core)
    with torch.no_grad():
        _, state = core(x, state, reset)
        step = torch.randn_like(core.get_parameter("layers.0.w0"))
        core.get_parameter("layers.0.w0").add_(step)
        none = torch.zeros(1, 3, dtype=torch.bool)
        y, _ = core(x[:1], state, none)
        expected, _ = literal("srwm", dict(core.named_parameters()), x[:1], state, none)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        core.get_parameter("layers.0.w0").sub_(step)
        assert not torch.allclose(core(x[:1], state, none)[0], y)


def test_w0_is_drawn_with_variance_one_over_head_width() -> None:
    torch.manual_seed(0)
    core = build_core(core_config("srwm"), 257)
    for layer in range(2):
        w0 = core.get_parameter(f"layers.{layer}.w0")
        assert w0.shape == (8, 16, 52)
        assert abs(w0.mean()) < 0.01
        assert abs(w0.std() - 0.25) < 0.01


@pytest.mark.parametrize("name", ["srwm", "sr_delta"])
def test_published_layers_hold_nothing_but_what_is_published(name: str) -> None:
    core = make_core(name)
    assert core.step_factors() == {}
    for layer in core.get_submodule("layers").children():
        assert isinstance(layer, SrwmLayer)
        assert layer.matrix() is layer.w0  # no operation more than published
        assert [key for key, _ in layer.named_parameters()] == ["w0", "out_linear.weight"]


@pytest.mark.parametrize("name", ["srwm", "sr_delta", "fake_srwm"])
def test_options_leave_what_is_drawn_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    plain = build_core(core_config(name, **SIZES), FEATURES)
    torch.manual_seed(0)
    options = {"layer_norm": True, "input_softmax": False, "initial_scale": 4.0}
    if name != "fake_srwm":
        options |= {"learn_sharpness": True, "sharpness": 3.0, "w0_learning_rate": [1, 2, 3, 4]}
    changed = dict(build_core(core_config(name, **SIZES, **options), FEATURES).named_parameters())
    for key, parameter in plain.named_parameters():
        scale = 4.0 if key.endswith(("w0", "w_y")) else 1.0
        torch.testing.assert_close(changed[key], scale * parameter)


def test_the_recommended_core_is_srwm_with_options() -> None:
    torch.manual_seed(0)
    sharp = build_core(core_config("srwm_sharp", **SIZES), FEATURES)
    torch.manual_seed(0)
    options = {"layer_norm": True, "input_softmax": False, "sharpness": 4.0, "unit_key": True}
    srwm = build_core(core_config("srwm", **SIZES, **options), FEATURES)
    x, start = torch.randn(5, 3, FEATURES), torch.zeros(5, 3, dtype=torch.bool)
    assert torch.equal(sharp(x, sharp.initial_state(3), start)[0], srwm(x, srwm.initial_state(3), start)[0])


def test_sharpness_that_is_learned_begins_as_the_one_that_is_not() -> None:
    cores = [make_core("srwm_sharp", options={"learn_sharpness": learned}) for learned in (False, True)]
    cores[1].load_state_dict(cores[0].state_dict(), strict=False)
    for layer in range(LAYERS):
        cores[1].get_parameter(f"layers.{layer}.log_sharpness").data.fill_(4.0).log_()
    x, state, reset = run_inputs(cores[0])
    torch.testing.assert_close(cores[1](x, state, reset)[0], cores[0](x, state, reset)[0])


def test_options_that_cannot_be() -> None:
    for options, words in (
        ({"w0_learning_rate": [1.0, 2.0]}, "2 factors: give one, or four"),
        ({"w0_learning_rate": [-1.0]}, "w0_learning_rate"),
        ({"sharpness": 0.0}, "sharpness"),
        ({"initial_scale": 0.0}, "initial_scale"),
    ):
        with pytest.raises(UserError, match=words):
            core_config("srwm", **options)


def test_paper_sizes() -> None:
    blocks = 2 * (2 * 128 + 128 * 512 + 512 + 512 * 128 + 128)
    layers = {
        "srwm": 2 * (8 * 16 * 52 + 128 * 128),
        "fake_srwm": 2 * (8 * 16 * 16 + 128 * 128),
        "deltanet": 2 * (2 * 128 + 128 * 8 * 49 + 128 * 128),
        "sr_delta": 2 * (8 * 16 * 85 + 128 * 128),
    }
    for name, size in layers.items():
        core = build_core(core_config(name), 257)
        assert sum(p.numel() for p in core.parameters()) == 257 * 128 + 128 + size + blocks
        assert core.output_size == 128


def test_fake_srwm_is_srwm_without_the_update() -> None:
    real, fake = make_core("srwm"), make_core("fake_srwm")
    parameters = dict(real.named_parameters())
    for key, parameter in fake.named_parameters():
        source = parameters[key.replace("w_y", "w0")].data
        parameter.data = source[..., :D].clone() if key.endswith("w_y") else source.clone()
    x, _, _ = run_inputs(real)
    always = torch.ones(x.shape[:2], dtype=torch.bool)  # cleared at every step, an SRWM's update never shows
    torch.testing.assert_close(fake(x, {}, always)[0], real(x, real.initial_state(3), always)[0])


def entropy(weights: Tensor) -> Tensor:
    shares = weights.abs() / weights.abs().sum()
    return -(shares * shares.log()).sum() / torch.tensor(float(len(weights))).double().log()


@pytest.mark.parametrize(("name", "options"), [("srwm", {}), *VARIANTS[:2], VARIANTS[4]], ids=str)
def test_srwm_diagnostics(name: str, options: dict[str, Any]) -> None:
    core, config = make_core(name, options=options), core_config(name, **options)
    x, state, reset = run_inputs(core)
    reset[-1] = torch.tensor([True, False, False])
    _, _, readings = core.examine(x, state, reset)
    found = {reading.tag: reading for reading in readings}
    with torch.no_grad():
        _, before = core(x[:-1], state, reset[:-1])
        _, after = core(x, state, reset)
        p = dict(core.named_parameters())
        out = p["layers.0.w0"].shape[-1] - 2 * D - 4
        for b in range(3):
            a = p["input_linear.weight"] @ x[-1, b] + p["input_linear.bias"]
            if config.layer_norm:
                a = layer_norm(a, p["layers.0.layer_norm.weight"], p["layers.0.layer_norm.bias"])
            wanted: dict[str, list[Tensor]] = {}
            outputs, moved = [], []
            for h in range(HEADS):
                sharpness = head_sharpness(p, 0, h, config)
                read = a[h * D : (h + 1) * D]
                read = softmax(read) if config.input_softmax else read
                shift = in_units_of_addresses(before["layer0/shift"][b, h], 1.0 / sharpness)
                shift = torch.zeros_like(shift) if reset[-1, b] else shift
                product = read @ (p["layers.0.w0"][h] + shift)
                outputs.append(product[:out])
                moved.append(product[:out] - read @ p["layers.0.w0"][h, :, :out])
                k, beta = product[out + D : out + 2 * D], sigmoid(product[out + 2 * D :] + config.rate_offset)
                wanted.setdefault("input_entropy", []).append(entropy(read))
                wanted.setdefault("key_entropy", []).append(entropy(softmax(sharpness[1] * k)))
                for index, rate in enumerate(("rate_y", "rate_q", "rate_k", "rate_beta")):
                    wanted.setdefault(rate, []).append(beta[index])
            for key, by_head in wanted.items():
                torch.testing.assert_close(found[f"layer0/{key}"].heads[b], torch.stack(by_head))
                torch.testing.assert_close(found[f"layer0/{key}"].values[b], torch.stack(by_head).mean())
            share = torch.cat(moved).norm() / torch.cat(outputs).norm()
            torch.testing.assert_close(found["layer0/shift_share"].values[b], share)
    assert found["layer0/shift_share"].values[0] == 0  # nothing is left of what was written before the reset
    assert found["layer0/shift_share"].values[1:].min() > 0
    for layer in range(LAYERS):
        norms = [after[f"layer{layer}/shift"][b].square().sum().sqrt() for b in range(3)]
        torch.testing.assert_close(found[f"layer{layer}/shift_norm"].values, torch.stack(norms))
    assert len(found) == LAYERS * (8 if name != "sr_delta" else 11)


def fast_output(core: Core, x: Tensor, memory: Tensor) -> Tensor:
    """What the first layer of a DeltaNet makes of one environment's features, head by head."""
    p = dict(core.named_parameters())
    a = p["input_linear.weight"] @ x + p["input_linear.bias"]
    normed = layer_norm(a, p["layers.0.layer_norm.weight"], p["layers.0.layer_norm.bias"])
    program = (p["layers.0.slow_net.weight"] @ normed).view(HEADS, 3 * D + 1)
    return torch.cat([delta_head(program[h], memory[h])[0] for h in range(HEADS)])


def test_deltanet_diagnostics() -> None:
    core = make_core("deltanet")
    x, state, reset = run_inputs(core)
    reset[-1] = False
    _, _, readings = core.examine(x, state, reset)
    values = {reading.tag: reading.values.mean() for reading in readings}
    with torch.no_grad():
        _, after = core(x, state, reset)
        p = dict(core.named_parameters())
        rates = []
        for b in range(3):
            a = p["input_linear.weight"] @ x[-1, b] + p["input_linear.bias"]
            normed = layer_norm(a, p["layers.0.layer_norm.weight"], p["layers.0.layer_norm.bias"])
            program = (p["layers.0.slow_net.weight"] @ normed).view(HEADS, 3 * D + 1)
            rates.append(sigmoid(program[:, -1]))
    torch.testing.assert_close(values["layer0/rate"], torch.stack(rates).mean())
    with torch.no_grad():
        _, before = core(x[:-1], state, reset[:-1])
        fresh = {key: torch.zeros_like(value) for key, value in before.items()}
        shares = []
        for b in range(3):  # against the same step of a core that remembers nothing
            full, empty = (
                fast_output(core, x[-1, b], memory["layer0/fast"][b]) for memory in (before, fresh)
            )
            shares.append((full - empty).norm() / full.norm())
    assert not reset[-1].any()
    torch.testing.assert_close(values["layer0/fast_share"], torch.stack(shares).mean())
    norms = [after["layer1/fast"][b].square().sum().sqrt() for b in range(3)]
    torch.testing.assert_close(values["layer1/fast_norm"], torch.stack(norms).mean())


def test_sr_delta_diagnostics() -> None:
    core = make_core("sr_delta")
    x, state, reset = run_inputs(core)
    _, _, readings = core.examine(x, state, reset)
    values = {reading.tag: reading.values.mean() for reading in readings}
    with torch.no_grad():
        _, before = core(x[:-1], state, reset[:-1])
        _, after = core(x, state, reset)
        cleared = torch.where(reset[-1, :, None, None, None], 0.0, before["layer0/shift"])
        w0, a = core.get_parameter("layers.0.w0"), core.get_submodule("input_linear")(x[-1])
        product = torch.stack(
            [
                sigmoid(softmax(a[b, h * D : (h + 1) * D]) @ (w0[h] + cleared[b, h]))
                for b in range(3)
                for h in range(HEADS)
            ]
        ).mean(0)
    torch.testing.assert_close(values["layer0/rate"], product[3 * D])
    for index, name in enumerate(("rate_y", "rate_q", "rate_k", "rate_beta")):
        torch.testing.assert_close(values[f"layer0/{name}"], product[5 * D + 1 + index])
    for layer in range(LAYERS):
        for part in ("shift", "fast"):
            norms = [after[f"layer{layer}/{part}"][b].square().sum().sqrt() for b in range(3)]
            torch.testing.assert_close(values[f"layer{layer}/{part}_norm"], torch.stack(norms).mean())
    assert len(values) == LAYERS * 11


@pytest.mark.parametrize("name", ["srwm", "srwm_sharp", "sr_delta", "deltanet"])
def test_gradients_by_block_are_those_of_the_columns(name: str) -> None:
    core = make_core(name)
    assert core.gradient_blocks() == {}
    x, state, reset = run_inputs(core)
    core(x, state, reset)[0].square().sum().backward()
    blocks = core.gradient_blocks()
    for layer in range(LAYERS):
        if name == "deltanet":
            gradient = core.get_parameter(f"layers.{layer}.slow_net.weight").grad
            assert gradient is not None
            by_head = gradient.view(HEADS, 3 * D + 1, WIDTH)
            expected = {"q": by_head[:, :D], "k": by_head[:, D : 2 * D], "beta": by_head[:, -1:]}
            names = ["q", "k", "v", "beta"]
        else:
            gradient = core.get_parameter(f"layers.{layer}.w0").grad
            assert gradient is not None
            expected = {
                "y": gradient[..., : -2 * D - 4],
                "k": gradient[..., -D - 4 : -4],
                "beta": gradient[..., -4:],
            }
            names = ["y", "q", "k", "beta"]
        own = {key.split("/")[1]: block for key, block in blocks.items() if key.startswith(f"layer{layer}/")}
        assert list(own) == names
        for key, block in expected.items():
            assert torch.equal(own[key], block)
        total = sum(block.square().sum() for block in own.values())
        torch.testing.assert_close(total, gradient.square().sum())
    assert len(blocks) == LAYERS * 4


@pytest.mark.parametrize("name", ["lstm", "feedforward", "fake_srwm"])
def test_cores_that_write_nothing_have_no_blocks(name: str) -> None:
    core = build_core(core_config(name), FEATURES)
    state = core.initial_state(2)
    x = torch.randn(3, 2, FEATURES).requires_grad_()
    core(x, state, torch.zeros(3, 2, dtype=torch.bool))[0].sum().backward()
    assert core.gradient_blocks() == {}
    assert core.step_factors() == {}


def test_deltanet_survives_extreme_inputs() -> None:
    core = make_core("deltanet").float()
    core.get_parameter("layers.0.slow_net.weight").data *= 1000.0  # elu + 1 is exactly 0 for whole heads
    y, _ = core(torch.randn(5, 8, FEATURES), core.initial_state(8), torch.zeros(5, 8, dtype=torch.bool))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in core.parameters())


@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_core_is_torch_lstm(layers: int) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(FEATURES, 4, num_layers=layers).double()
    core = build_core(core_config("lstm", hidden=4, layers=layers), FEATURES).double()
    for layer in range(layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            core.get_parameter(f"cells.{layer}.{name}").data = getattr(
                module, f"{name}_l{layer}"
            ).data.clone()
    x, _, reset = run_inputs(core)
    y, state = core(x, core.initial_state(3), reset)
    for b in range(3):
        h = c = torch.zeros(layers, 1, 4, dtype=torch.float64)
        for t in range(len(x)):
            if reset[t, b]:
                h, c = torch.zeros_like(h), torch.zeros_like(c)
            expected, (h, c) = module(x[t : t + 1, b : b + 1], (h, c))
            torch.testing.assert_close(y[t, b], expected[0, 0])
        for layer in range(layers):
            torch.testing.assert_close(state[f"layer{layer}/hidden"][b], h[layer, 0])
            torch.testing.assert_close(state[f"layer{layer}/cell"][b], c[layer, 0])
