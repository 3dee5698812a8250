"""The assembled policy: shapes, wiring, gradients, configuration to JSON and back, errors."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from common.config import plain
from common.errors import UserError
from policies import (
    CORES,
    ImpalaEncoderConfig,
    Kind,
    Policy,
    PolicyConfig,
    Reading,
    State,
    TaskConfig,
    core_config,
    from_json,
    name_of,
    policy_config,
)
from policies.cores.base import CoreConfig
from policies.resets import SpanReset
from small_cores import small_core

SHAPE = (8, 8, 3)
NAMES = sorted(CORES)


class Inputs(NamedTuple):
    rgb: Tensor
    reward: Tensor
    episode_start: Tensor


def make_policy(name: str, seed: int = 0, **fields: Any) -> Policy:
    torch.manual_seed(seed)
    config = PolicyConfig(small_core(name), ImpalaEncoderConfig(hidden=16, channels=(4,)), **fields)
    return Policy(config, SHAPE, num_actions=5)


def make_inputs(steps: int = 4, batch: int = 3) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    return Inputs(
        torch.randint(0, 256, (steps, batch, *SHAPE), dtype=torch.uint8, generator=generator),
        torch.randn(steps, batch, 1, generator=generator).clamp(-1, 1),
        torch.rand(steps, batch, generator=generator) < 0.2,
    )


def run(policy: Policy, inputs: Inputs, state: State | None = None) -> Any:
    first = policy.initial_state(inputs.rgb.shape[1]) if state is None else state
    return policy(inputs.rgb, inputs.reward, first, inputs.episode_start)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_heads_on_core_on_features_and_reward(name: str) -> None:
    policy, inputs = make_policy(name), make_inputs()
    output = run(policy, inputs)
    assert output.logits.shape == (4, 3, 5)
    assert output.value.shape == (4, 3)
    features = policy.encoder(inputs.rgb.reshape(12, *SHAPE)).reshape(4, 3, 16)
    core_output, state = policy.core(
        torch.cat([features, inputs.reward], -1), policy.initial_state(3), inputs.episode_start
    )
    torch.testing.assert_close(output.logits, core_output @ policy.actor.weight.t() + policy.actor.bias)
    torch.testing.assert_close(output.value, core_output @ policy.critic.weight[0] + policy.critic.bias)
    assert output.state.keys() == state.keys()
    assert policy.is_recurrent == bool(state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reset", ["episode", "never", "2"])
def test_acting_step_by_step_equals_one_unroll(name: str, reset: str) -> None:
    policy, inputs = make_policy(name, reset=reset), make_inputs(6)
    whole = run(policy, inputs)
    state, logits, values = policy.initial_state(3), [], []
    for t in range(6):
        step = Inputs(*(tensor[t : t + 1] for tensor in inputs))
        with torch.no_grad():
            output = run(policy, step, state)
        state = output.state
        logits.append(output.logits)
        values.append(output.value)
    torch.testing.assert_close(torch.cat(logits), whole.logits.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(values), whole.value.detach(), rtol=1e-4, atol=1e-5)
    for key, value in whole.state.items():
        torch.testing.assert_close(state[key], value.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_parameter_gets_a_gradient(name: str, precision: str) -> None:
    policy = make_policy(name, precision=precision)
    output = run(policy, make_inputs(6, 8))
    (output.logits.log_softmax(-1)[..., 0].sum() + output.value.square().sum()).backward()
    for parameter_name, parameter in policy.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


def test_reward_is_clipped() -> None:
    policy, inputs = make_policy("lstm"), make_inputs()
    large = run(policy, inputs._replace(reward=torch.full_like(inputs.reward, 40.0)))
    one = run(policy, inputs._replace(reward=torch.ones_like(inputs.reward)))
    zero = run(policy, inputs._replace(reward=torch.zeros_like(inputs.reward)))
    assert torch.equal(large.logits, one.logits)
    assert not torch.allclose(zero.logits, one.logits)


def test_configuration_reaches_the_core_and_the_encoder() -> None:
    policy = make_policy("srwm", reset="7", bptt_span=3, precision="bfloat16")
    assert policy.core.reset_rule == SpanReset(7)
    assert policy.core.bptt_span == 3
    assert policy.encoder.precision == "bfloat16"
    assert "age" in policy.initial_state(2)


@pytest.mark.parametrize("name", NAMES)
def test_seed_alone_decides_the_parameters(name: str) -> None:
    first, second, other = make_policy(name), make_policy(name), make_policy(name, seed=1)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert not torch.equal(first.actor.weight, other.actor.weight)


def test_diagnostics_are_the_cores() -> None:
    policy, inputs = make_policy("srwm"), make_inputs()
    values = policy.diagnostics(inputs.rgb, inputs.reward, policy.initial_state(3), inputs.episode_start)
    assert {"layer0/shift_norm", "layer0/rate_y", "layer1/rate_beta"} <= values.keys()
    assert values["layer0/shift_norm"] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 4])
def test_examining_is_running_and_looking(name: str, steps: int) -> None:
    policy, inputs = make_policy(name, reset="3"), make_inputs(steps)
    state = policy.initial_state(3)
    output, readings = policy.examine(inputs.rgb, inputs.reward, state, inputs.episode_start)
    expected = run(policy, inputs)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.value, expected.value)
    for key in expected.state:
        torch.testing.assert_close(output.state[key], expected.state[key])
    if steps == 1:  # acting: the same numbers
        with torch.no_grad():
            assert torch.equal(output.logits, run(policy, inputs).logits)
    means = policy.diagnostics(inputs.rgb, inputs.reward, state, inputs.episode_start)
    assert {reading.tag: reading.values.shape for reading in readings} == dict.fromkeys(means, (3,))
    for reading in readings:
        assert torch.equal(reading.values.mean(), means[reading.tag])


@pytest.mark.parametrize("name", ["srwm", "srwm_sharp", "deltanet", "sr_delta"])
def test_spreads_of_rates_are_over_time(name: str) -> None:
    policy, inputs = make_policy(name), make_inputs(6)
    state = policy.initial_state(3)
    spreads = policy.rate_spreads(inputs.rgb, inputs.reward, state, inputs.episode_start)
    rates: dict[str, list[torch.Tensor]] = {}
    for t in range(6):
        args = inputs.rgb[: t + 1], inputs.reward[: t + 1], state, inputs.episode_start[: t + 1]
        for reading in policy.examine(*args)[1]:
            if reading.kind is Kind.RATE:
                assert reading.heads is not None
                rates.setdefault(f"{reading.tag}_spread", []).append(reading.heads)
    assert spreads.keys() == rates.keys()
    assert len(spreads) == {"deltanet": 2, "sr_delta": 10}.get(name, 8)
    for tag, steps in rates.items():
        over_time = torch.stack(steps)  # (T, B, H)
        expected = (over_time - over_time.mean(dim=0)).square().mean(dim=0).sqrt().mean()
        assert expected > 0
        torch.testing.assert_close(spreads[tag], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["lstm", "feedforward", "fake_srwm"])
def test_cores_without_rates_have_no_spreads(name: str) -> None:
    policy, inputs = make_policy(name), make_inputs()
    assert policy.rate_spreads(inputs.rgb, inputs.reward, policy.initial_state(3), inputs.episode_start) == {}


def test_readings_say_what_they_are() -> None:
    policy, inputs = make_policy("sr_delta"), make_inputs()
    _, readings = policy.examine(inputs.rgb, inputs.reward, policy.initial_state(3), inputs.episode_start)
    rates = [(Kind.RATE, name) for name in ("rate_y", "rate_q", "rate_k", "rate_beta")]
    shares = [(Kind.SHARE, name) for name in ("input_entropy", "key_entropy", "shift_share")]
    fast = [(Kind.NORM, "fast_norm"), (Kind.RATE, "rate"), (Kind.SHARE, "fast_share")]
    one_layer = [(Kind.NORM, "shift_norm"), *rates, *shares, *fast]
    assert [(reading.layer, reading.kind, reading.name) for reading in readings] == [
        (layer, kind, name) for layer in range(2) for kind, name in one_layer
    ]
    assert readings[0].tag == "layer0/shift_norm"
    assert Reading("entropy", Kind.RATE, torch.zeros(3)).tag == "entropy"


def test_state_loads_into_a_new_policy() -> None:
    policy, inputs = make_policy("srwm"), make_inputs()
    other = make_policy("srwm", seed=1)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(run(other, inputs).logits, run(policy, inputs).logits)


def test_wrong_inputs_raise() -> None:
    policy, inputs = make_policy("srwm"), make_inputs()
    state = policy.initial_state(3)
    with pytest.raises(TypeError, match="uint8"):
        policy(inputs.rgb.float(), inputs.reward, state, inputs.episode_start)
    with pytest.raises(TypeError, match="bool"):
        policy(inputs.rgb, inputs.reward, state, inputs.episode_start.float())
    for rgb, reward, episode_start in (
        (inputs.rgb[0], inputs.reward, inputs.episode_start),
        (inputs.rgb.permute(0, 1, 4, 2, 3), inputs.reward, inputs.episode_start),
        (inputs.rgb, inputs.reward.squeeze(-1), inputs.episode_start),
        (inputs.rgb, inputs.reward, inputs.episode_start[1:]),
    ):
        with pytest.raises(ValueError, match="must be"):
            policy(rgb, reward, state, episode_start)


CONFIGS = [
    PolicyConfig(),
    PolicyConfig(core_config("lstm", hidden=7, layers=2), reset="never"),
    PolicyConfig(
        core_config("srwm", heads=4), ImpalaEncoderConfig(hidden=32, channels=(4, 8)), "50", 10, "bfloat16"
    ),
    *(policy_config(name) for name in NAMES),
]


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_json_round_trip(config: PolicyConfig) -> None:
    text = json.dumps(plain(config))
    assert from_json(json.loads(text)) == config


def test_json_layout() -> None:
    assert plain(PolicyConfig()) == {
        "core": {
            "name": "srwm",
            "width": 128,
            "heads": 8,
            "feedforward": 512,
            "layers": 2,
            "layer_norm": False,
            "input_softmax": True,
            "initial_scale": 1.0,
            "implementation": "auto",
            "sharpness": 1.0,
            "learn_sharpness": False,
            "unit_key": False,
            "rate_offset": 0.0,
            "w0_learning_rate": [1.0],
        },
        "encoder": {"name": "impala", "hidden": 256, "channels": [16, 32, 32], "blocks": 2},
        "reset": "episode",
        "bptt_span": None,
        "precision": "auto",
        "initial_weights": "torch",
        "bypass": False,
        "tasks": {
            "count": 1,
            "id": "hidden",
            "heads": "shared",
            "cores": "shared",
            "gated_share": 0.0,
            "gated_apart": False,
            "gate_seed": 0,
        },
    }


def test_json_fields_left_out_take_their_defaults() -> None:
    assert from_json({}) == PolicyConfig()
    sizes = {"width": 8, "heads": 2}  # as written before there was a choice of implementation
    assert from_json({"core": {"name": "srwm", **sizes}}).core == core_config("srwm", **sizes)
    assert from_json({"core": {"name": "lstm"}, "reset": "never"}) == policy_config("lstm", reset="never")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"core": {"name": "srmw"}}, "did you mean srwm"),
        ({"core": {"name": ["srwm"]}}, "unknown policy"),
        ({"core": {"name": "srwm", "width": 3}}, "multiple"),
        ({"core": {"name": "srwm", "width": 0}}, "core.width is 0: give 1 or more"),
        ({"core": {"name": "srwm", "layers": 10**9}}, "at most 1,000"),
        ({"core": {"name": "lstm", "hiden": 3}}, "did you mean hidden"),
        ({"core": {"name": "feedforward", "width": 3}}, "width"),
        ({"core": {"name": "srwm", "width": "128"}}, "whole number"),
        ({"core": {"name": "srwm", "implementation": "fussed"}}, "did you mean fused"),
        ({"core": {"name": "deltanet", "implementation": "fused"}}, "known: .*chunk"),
        ({"core": {"name": "srwm", "implementation": 3}}, "implementation"),
        ({"core": {"name": "fake_srwm", "implementation": "naive"}}, "setting"),
        ({"encoder": {"channel": [3]}}, "did you mean channels"),
        ({"encoder": {"hidden": 0}}, "hidden"),
        ({"encoder": None}, "named fields"),
        ({"encoder": {"channels": []}}, "encoder channels are 0 numbers"),
        ({"encoder": {"channels": [16, 0]}}, "encoder.channels is 0"),
        ({"encoder": {"channels": "16"}}, "encoder.channels is .*list"),
        ({"resets": "never"}, "did you mean reset"),
        ({"reset": "sometimes"}, "reset rule"),
        ({"bptt_span": 0}, "bptt_span"),
        ({"bptt_span": 10**30}, "bptt_span"),
        ({"reset": "9" * 400}, "reset rule"),
        ({"reset": "0"}, "reset rule"),
        ({"precision": "float64"}, "precision"),
        ([], "named fields"),
    ],
)
def test_bad_json_gets_one_clear_line(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        from_json(data)
    assert "\n" not in str(error.value)


def test_names_and_configurations() -> None:
    for name in NAMES:
        assert name_of(core_config(name)) == name
        assert name_of(policy_config(name).core) == name
    with pytest.raises(UserError, match="no core is registered"):
        name_of(CoreConfig())
    with pytest.raises(UserError, match="did you mean deltanet"):
        policy_config("delta_net")
    with pytest.raises(UserError, match="did you mean bptt_span"):
        policy_config("srwm", bptt_spn=3)


def test_impossible_number_of_actions_is_refused() -> None:
    with pytest.raises(UserError, match="actions"):
        Policy(PolicyConfig(), SHAPE, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bptt_span": 2.0}, "bptt_span"),
        ({"bptt_span": True}, "bptt_span"),
        ({"precision": "float16"}, "bfloat16"),
        ({"core": CoreConfig()}, "register"),
        (
            {"encoder": ImpalaEncoderConfig(hidden=0), "reset": "no", "bptt_span": -1},
            "2 problems.*hidden.*bptt_span",
        ),
    ],
)
def test_a_policy_says_everything_that_is_wrong_with_its_configuration(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Policy(PolicyConfig(**fields), SHAPE, 5)


@pytest.mark.parametrize("heads", ["shared", "per-task", "blocks"])
def test_core_and_heads_begin_anew_as_their_seed_says(heads: str) -> None:
    told = {"id": "told"} if heads == "per-task" else {}
    tasks = TaskConfig(2, heads=heads, **told)
    policy, other = (make_policy("srwm", seed=seed, tasks=tasks) for seed in (0, 1))
    policy.see_task(1)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    noise = torch.get_rng_state()
    policy.renew(7)
    other.renew(7)
    assert torch.equal(torch.get_rng_state(), noise)
    mine, theirs = policy.state_dict(), other.state_dict()
    encoder = {name for name in before if name.startswith("encoder.")}
    assert all(torch.equal(mine[name], before[name]) for name in encoder)
    weights = {name for name, _ in policy.named_parameters()} - encoder
    assert all(torch.equal(mine[name], theirs[name]) for name in weights)
    assert not any(torch.equal(mine[name], before[name]) for name in weights if "norm" not in name)
    kept = set(before) - weights  # which blocks are open is no weight
    assert all(torch.equal(mine[name], before[name]) for name in kept)


OPAQUE = [name for name in NAMES if not CORES[name].transparent]


@pytest.mark.parametrize("name", OPAQUE)
def test_heads_read_the_features_beside_the_core(name: str) -> None:
    policy, inputs = make_policy(name, bypass=True), make_inputs()
    output = run(policy, inputs)
    features = policy.features(inputs.rgb, inputs.reward)
    core, _ = policy.core(features, policy.initial_state(3), inputs.episode_start)
    seen = torch.cat([core, features], dim=-1)
    assert output.hidden.shape[-1] == policy.hidden_size == policy.core.output_size + 17
    torch.testing.assert_close(output.hidden, seen)
    torch.testing.assert_close(output.logits, policy.actor(seen, None))
    torch.testing.assert_close(output.value, policy.critic(seen, None).squeeze(-1))


@pytest.mark.parametrize("name", OPAQUE)
def test_what_bypasses_the_core_needs_nothing_of_it(name: str) -> None:
    """The encoder learns though the core lets nothing through; without the bypass it does not."""
    inputs = make_inputs()
    for bypass in (False, True):
        policy = make_policy(name, bypass=bypass)
        for parameter in policy.core.parameters():
            torch.nn.init.zeros_(parameter)
        run(policy, inputs).logits.square().sum().backward()
        learned = sum(p.grad.abs().sum().item() for p in policy.encoder.parameters() if p.grad is not None)
        assert (learned > 0) == bypass


@pytest.mark.parametrize("name", OPAQUE)
def test_with_a_bypass_steps_make_the_sequence(name: str) -> None:
    policy, inputs = make_policy(name, bypass=True, reset="2"), make_inputs()
    whole = run(policy, inputs)
    state, logits = policy.initial_state(3), []
    for t in range(len(inputs.rgb)):
        step = Inputs(*(part[t : t + 1] for part in inputs))
        output = run(policy, step, state)
        state = output.state
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits), whole.logits, rtol=1e-4, atol=1e-5)


def test_nothing_bypasses_a_core_that_returns_the_features() -> None:
    """So that one command, with another core, trains the twin."""
    inputs = make_inputs()
    with_bypass, without = (
        run(make_policy("feedforward", bypass=bypass), inputs) for bypass in (True, False)
    )
    torch.testing.assert_close(with_bypass.logits, without.logits, rtol=0, atol=0)
    assert with_bypass.hidden.shape[-1] == make_policy("feedforward", bypass=True).hidden_size == 17


def test_configurations_of_before_the_bypass_are_read() -> None:
    stored = plain(policy_config("srwm", bypass=True))
    assert from_json(stored).bypass
    del stored["bypass"]
    assert not from_json(stored).bypass
