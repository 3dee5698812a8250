"""Policies that are trained in turn on one encoder: what they share, what is their own, and what a penalty holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import IMPALA, Agent
from agents.retention import RetentionConfig
from benchmarks.shared_encoder import Models, Options, forgetting, main
from benchmarks.toy_sequence import SignedFrames
from common.errors import UserError
from policies import PolicyConfig
from policies.encoders.small_frames import SmallFramesConfig
from small_cores import small_core

SIZES = {"width": 16, "heads": 2, "feedforward": 16, "layers": 1, "hidden": 16}
CORES = ("lstm", "srwm", "feedforward")


class Observed:
    """Notes, whenever a policy is scored, its encoder and what is its own."""

    def __init__(self) -> None:
        self.encoders: list[dict[str, torch.Tensor]] = []
        self.own: list[dict[str, torch.Tensor]] = []

    def __call__(self, agent: Agent) -> float:
        weights = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        self.encoders.append({n: t for n, t in weights.items() if n.startswith("encoder.")})
        self.own.append({n: t for n, t in weights.items() if not n.startswith("encoder.")})
        return float(len(self.own))


def small(score: Observed, steps: int) -> Models:
    policies = tuple(
        PolicyConfig(small_core(core, **SIZES), SmallFramesConfig(16, (4,), blocks=0, shrink=4))
        for core in CORES
    )
    return Models(
        policies,
        lambda place: SignedFrames([0] * 8, place),
        score,
        steps,
        "impala",
        {"rollout_steps": 5, "device": "cpu", "optimizer": "adam", "learning_rate": 3e-3},
    )


def train(retention: str, steps: int = 200, **retain: Any) -> tuple[Observed, list[list[float]]]:
    seen = Observed()
    models = small(seen, steps)
    return seen, models.train(retention, RetentionConfig(consolidation_rollouts=1, **retain), seed=0)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def moved(seen: Observed) -> float:
    """How far the encoder is in the end from where the first policy left it."""
    first, last = seen.encoders[0], seen.encoders[-1]
    return float(torch.stack([(last[name] - tensor).norm() for name, tensor in first.items()]).norm())


def test_the_encoder_is_one_and_the_rest_is_each_ones_own() -> None:
    seen, table = train("none")
    assert table == [[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]]
    for places in ([1, 2], [3, 4, 5]):  # scored after the second and after the third were trained
        assert all(same(seen.encoders[places[0]], seen.encoders[place]) for place in places)
    assert not same(seen.encoders[0], seen.encoders[1])
    for first, *later in ([0, 1, 3], [2, 4]):
        assert all(same(seen.own[first], seen.own[place]) for place in later)


@pytest.mark.parametrize("form", ["diagonal", "schur"])
def test_the_penalty_goes_from_one_policy_to_the_next(form: str) -> None:
    """Whatever its core, and without its private weights: these have other shapes."""
    floor = {"wpl_floor": 1.0, "wpl_unrolls": 4} if form == "schur" else {}
    free, _ = train("none")
    held, _ = train("wpl", wpl_form=form, wpl_strength=1e6, **floor)
    assert same(free.encoders[0], held.encoders[0])
    assert moved(held) < 0.5 * moved(free)


def test_a_method_that_holds_private_weights_cannot_be_handed_on() -> None:
    with pytest.raises(ValueError, match="is of another network"):
        train("ewc", steps=40)


def test_what_is_lost() -> None:
    assert forgetting([[5.0], [3.0, 6.0], [1.0, 5.0, 7.0]]) == pytest.approx((4.0 + 1.0) / 2)
    assert math.isnan(forgetting([[5.0]]))


def test_the_command_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Options, "models", lambda self, seed: small(Observed(), 40))
    main(Options(conditions=("diagonal",), strength=3.0, out=tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["returns"] == {"diagonal": [[[1.0], [2.0, 3.0], [4.0, 5.0, 6.0]]]}
    assert "diagonal" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown core 'gru'"):
        main(Options(cores=("gru",)))


def test_policies_play_a_real_game() -> None:
    models = Options(game="dodgeball", cores=("lstm", "srwm"), num_envs=2, episodes=1).models(0)
    assert len({policy.encoder for policy in models.policies}) == 1
    env = models.make_env(1)
    policy = PolicyConfig(small_core("lstm", **SIZES), SmallFramesConfig(16, (4,), blocks=0, shrink=16))
    assert math.isfinite(models.score(IMPALA(policy, env, seed=0, rollout_steps=5)))
    env.close()
