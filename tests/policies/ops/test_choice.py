"""Which version of an operator runs, and who has a say in it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from common.errors import UserError
from policies import Policy, PolicyConfig, core_config, policy_config
from policies.encoder import EncoderConfig
from policies.ops import OPERATORS, VARIABLE, check_requested, chosen, deltanet, lstm, requested, srwm
from policies.registry import CORES, build_core

WHOLE = {"srwm": "fused", "deltanet": "chunk", "lstm": "naive"}
SINGLE = {"srwm": "step", "deltanet": "step", "lstm": "naive"}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_auto_stands_for(operator: str) -> None:
    assert chosen(operator, "cpu", 50) == WHOLE[operator]
    assert chosen(operator, "cpu", 1) == SINGLE[operator]
    cuda = torch.device("cuda")  # nothing is done there
    assert chosen(operator, cuda, 1) in ("naive", "triton")
    for steps in (1, 2, 50):
        assert chosen(operator, cuda, steps, 10**6, 10**6) in OPERATORS[operator].implementations


@pytest.mark.parametrize("operator", OPERATORS)
def test_configuration_and_environment_have_a_say(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requested(operator) == "auto"
    assert requested(operator, "naive") == chosen(operator, "cpu", 50, implementation="naive") == "naive"
    monkeypatch.setenv(VARIABLE, "step")
    expected = "auto" if operator == "lstm" else "step"  # an operator without such a version chooses itself
    assert requested(operator, "naive") == expected
    monkeypatch.setenv(VARIABLE, "naiv")
    with pytest.raises(UserError, match=f"{VARIABLE}.*did you mean naive"):
        requested(operator)


def test_unknown_versions_are_refused() -> None:
    check_requested("chunk", ["srwm", "deltanet"])
    for bad in ("chunk", "", "Naive"):
        with pytest.raises(UserError, match="implementation"):
            check_requested(bad, ["srwm"])


@pytest.mark.parametrize(("module", "core"), [(srwm, "srwm"), (deltanet, "deltanet")])
@pytest.mark.parametrize("source", ["configuration", "environment"])
def test_the_version_asked_for_runs(
    module: ModuleType, core: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def spy(name: str) -> None:
        real = module.IMPLEMENTATIONS[name]

        def call(*args: torch.Tensor) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setitem(module.IMPLEMENTATIONS, name, call)

    for name in module.IMPLEMENTATIONS:
        spy(name)
    sizes = {"width": 8, "heads": 2, "feedforward": 4, "layers": 1}

    def run(implementation: str) -> list[str]:
        calls.clear()
        config = core_config(core, implementation=implementation, **sizes)
        network = build_core(config, 5)
        for steps in (6, 1):
            network(torch.randn(steps, 2, 5), network.initial_state(2), torch.ones(steps, 2).bool())
            assert calls[-1] == network.implementations(steps)[core]
        return calls

    assert run("auto") == [WHOLE[core], SINGLE[core]]
    if source == "configuration":
        assert run("naive") == ["naive", "naive"]
    else:
        monkeypatch.setenv(VARIABLE, "naive")
        assert run("step") == ["naive", "naive"]


@pytest.mark.parametrize("name", CORES)
def test_every_core_can_say_what_runs(name: str) -> None:
    core = build_core(core_config(name), 5)
    for steps in (1, 50):
        for operator, version in core.implementations(steps).items():
            assert version == chosen(operator, "cpu", steps)


def test_the_gradient_horizon_cuts_the_sequences_of_a_policy() -> None:
    for bptt_span, expected in ((None, "chunk"), (10, "chunk"), (1, "step")):
        config = PolicyConfig(core_config("deltanet"), EncoderConfig((4,), 8), bptt_span=bptt_span)
        policy = Policy(config, (8, 8, 3), 5)
        assert policy.implementations(50) == {"deltanet": expected}
        assert policy.implementations(1) == {"deltanet": "step"}
    assert Policy(policy_config("feedforward"), (8, 8, 3), 5).implementations(50) == {}
    assert chosen("lstm", "cpu", 3) == lstm.choose(torch.device("cpu"), 3)
