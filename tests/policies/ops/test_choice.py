"""Which version of an operator runs: by device and shape; configuration and environment have a say in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.errors import UserError
from policies import Policy, PolicyConfig, core_config, policy_config
from policies.encoders.impala import ImpalaEncoderConfig
from policies.ops import OPERATORS, VARIABLE, requested
from policies.ops.operator import Operator
from policies.registry import CORES, build_core

CPU = torch.device("cpu")
WHOLE = {"srwm": "fused", "deltanet": "chunk"}
SINGLE = {"srwm": "step", "deltanet": "step"}
SIZES = {"width": 8, "heads": 2, "feedforward": 4, "layers": 2}

each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@each_operator
def test_what_auto_stands_for(operator: Operator) -> None:
    assert operator.choose(CPU, 50) == WHOLE[operator.name]
    assert operator.choose(CPU, 1) == SINGLE[operator.name]
    cuda = torch.device("cuda")  # nothing is done there
    assert operator.choose(cuda, 1) in ("naive", "triton")
    for steps in (1, 2, 50):
        assert operator.choose(cuda, steps, 10**6, 10**6) in operator.versions


@each_operator
def test_configuration_and_environment_have_a_say(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requested(operator) == "auto"
    assert requested(operator, "naive") == operator.choose(CPU, 50, implementation="naive") == "naive"
    monkeypatch.setenv(VARIABLE, "step")
    assert requested(operator, "naive") == "step"
    monkeypatch.setenv(VARIABLE, "fused")  # an operator without such a version chooses itself
    assert requested(operator, "naive") == ("fused" if operator.name == "srwm" else "auto")
    monkeypatch.setenv(VARIABLE, "naiv")
    with pytest.raises(UserError, match=f"{VARIABLE}.*did you mean naive"):
        requested(operator)


def test_unknown_versions_are_refused() -> None:
    for core, known in (("srwm", "fused"), ("deltanet", "chunk"), ("sr_delta", "chunk")):
        core_config(core, implementation=known)
    for bad in ("chunk", "", "Naive"):
        with pytest.raises(UserError, match="implementation"):
            core_config("srwm", implementation=bad)


@each_operator
@pytest.mark.parametrize("source", ["configuration", "environment"])
def test_the_version_asked_for_runs(operator: Operator, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def spy(name: str) -> None:
        real = operator.versions[name]

        def call(*args: torch.Tensor) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setitem(operator.versions, name, call)  # type: ignore[arg-type]  # it is a dict

    for name in operator.versions:
        spy(name)

    def run(implementation: str) -> list[str]:
        calls.clear()
        network = build_core(core_config(operator.name, implementation=implementation, **SIZES), 5)
        for steps in (6, 1):
            network(torch.randn(steps, 2, 5), network.initial_state(2), torch.ones(steps, 2).bool())
            assert calls[-1] == network.implementations(steps)[operator.name]
        return calls[::2]

    assert run("auto") == [WHOLE[operator.name], SINGLE[operator.name]]
    if source == "configuration":
        assert run("naive") == ["naive", "naive"]
    else:
        monkeypatch.setenv(VARIABLE, "naive")
        assert run("step") == ["naive", "naive"]


@pytest.mark.parametrize("name", ["srwm", "deltanet", "sr_delta"])
def test_what_is_said_to_run_is_what_was_chosen_when_the_core_was_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = build_core(core_config(name, **SIZES), 5)
    monkeypatch.setenv(VARIABLE, "naive")
    for operator, version in core.implementations(50).items():
        assert version == WHOLE[operator]
    later = build_core(core_config(name, **SIZES), 5)
    monkeypatch.delenv(VARIABLE)
    assert set(later.implementations(50).values()) == set(later.implementations(1).values()) == {"naive"}


@pytest.mark.parametrize("name", CORES)
def test_every_core_can_say_what_runs(name: str) -> None:
    core = build_core(core_config(name), 5)
    for steps in (1, 50):
        for operator, version in core.implementations(steps).items():
            assert version == OPERATORS[operator].choose(CPU, steps)


def test_the_gradient_horizon_cuts_the_sequences_of_a_policy() -> None:
    for bptt_span, expected in ((None, "chunk"), (10, "chunk"), (1, "step")):
        config = PolicyConfig(
            core_config("deltanet"), ImpalaEncoderConfig(hidden=8, channels=(4,)), bptt_span=bptt_span
        )
        policy = Policy(config, (8, 8, 3), 5)
        assert policy.implementations(50) == {"deltanet": expected}
        assert policy.implementations(1) == {"deltanet": "step"}
    assert Policy(policy_config("feedforward"), (8, 8, 3), 5).implementations(50) == {}
