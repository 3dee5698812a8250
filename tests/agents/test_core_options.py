"""What options of a core mean to learning: learning rates of their own, exact continuation, what is logged."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.logger import configure

from agents import ALGORITHMS, IMPALA
from agents.rollout import Batch
from helpers import assert_same
from policies import PolicyConfig

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]
MakeBatch = Callable[..., Batch]

ROLLOUT = {"impala": {"rollout_steps": 5}, "ppo": {"rollout_steps": 5, "minibatches": 2, "epochs": 2}}


def with_options(config: PolicyConfig, **options: Any) -> PolicyConfig:
    return replace(config, core=replace(config.core, **options))


def test_a_factor_multiplies_the_step_of_its_columns_alone(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    """One update of RMSProp: the same gradient, the same step but for the columns."""
    agents = [
        IMPALA(with_options(tiny("srwm"), w0_learning_rate=factors), toy(4), seed=0, rollout_steps=5)
        for factors in ((1.0,), (1.0, 1.0, 3.0, 20.0))
    ]
    before = {name: tensor.clone() for name, tensor in agents[0].policy.state_dict().items()}
    batch = random_batch(agents[0].policy, 5, 4)
    for agent in agents:
        agent.learner.learn(batch, 0)
    plain, scaled = (agent.policy.state_dict() for agent in agents)
    for name, start in before.items():
        factor = torch.ones(())
        if name.endswith("w0"):
            width = start.shape[1]
            factor = torch.tensor([1.0] * (2 * width) + [3.0] * width + [20.0] * 4)
        torch.testing.assert_close(scaled[name] - start, factor * (plain[name] - start), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["impala", "ppo"])
def test_a_run_with_options_goes_on_exactly(
    algorithm: str, tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    kind = ALGORITHMS[algorithm]
    policy = with_options(
        tiny("srwm_sharp"), learn_sharpness=True, rate_offset=-1.0, w0_learning_rate=(1.0, 2.0, 2.0, 10.0)
    )
    settings = {**ROLLOUT[algorithm], "learning_rate_decay": False, "seed": 0}
    steps = 5 * 6
    whole = kind(policy, procgen(), **settings)
    whole.learn(4 * steps)
    half = kind(policy, procgen(), **settings)
    half.learn(2 * steps)
    half.save(tmp_path / "half")
    resumed = kind.load(tmp_path / "half", procgen(seed=3), force_reset=False)
    resumed.learn(2 * steps, reset_num_timesteps=False)
    assert_same(dict(resumed.policy.state_dict()), dict(whole.policy.state_dict()))
    assert_same(resumed.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"])
    assert resumed.policy.core.step_factors().keys() == {"layers.0.w0"}


def test_gradient_norms_by_block_add_up(tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch) -> None:
    agent = IMPALA(tiny("srwm"), toy(4), seed=0, rollout_steps=5, max_grad_norm=1e9)
    metrics = agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    gradient = agent.policy.core.get_parameter("layers.0.w0").grad
    assert metrics is not None
    assert gradient is not None
    names = [f"grad_norm/layer0/{block}" for block in ("y", "q", "k", "beta")]
    assert [tag for tag in metrics if tag.startswith("grad_norm/")] == names
    squares = sum(metrics[name] ** 2 for name in names)
    assert squares == pytest.approx(gradient.square().sum().item(), rel=1e-5)
    assert metrics["grad_norm/layer0/beta"] == pytest.approx(gradient[..., -4:].norm().item(), rel=1e-5)


def test_the_log_tells_whether_self_modification_is_used(
    tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    agent = IMPALA(tiny("srwm_sharp"), procgen(), seed=0, rollout_steps=5)
    logger = configure(str(tmp_path), ["csv"])
    agent.set_logger(logger)
    agent.learn(3 * 5 * 6)
    logger.close()
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        for entropy in ("input_entropy", "key_entropy"):
            assert 0 < float(row[f"core/layer0/{entropy}"]) < 1
        assert float(row["core/layer0/shift_share"]) > 0
        for block in ("y", "q", "k", "beta"):
            assert float(row[f"train/grad_norm/layer0/{block}"]) > 0
            assert 0 < float(row[f"core/layer0/rate_{block}_spread"]) < 0.5


@pytest.mark.parametrize("lag", [0, 1])
def test_spreads_are_of_the_rollout_that_was_learned_from(
    lag: int, tiny: Tiny, procgen: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(tiny("srwm"), procgen(), seed=0, rollout_steps=5, rollout_lag=lag)
    learned: list[torch.Tensor] = []
    shown: list[torch.Tensor] = []
    learn, spreads = agent.learner.learn, agent.actors.rate_spreads

    def learn_and_note(rollout: Batch, step: int) -> Any:
        learned.append(rollout.rgb.clone())
        return learn(rollout, step)

    def spreads_and_note(rollout: Batch) -> dict[str, float]:
        shown.append(rollout.rgb.clone())
        return spreads(rollout)

    monkeypatch.setattr(agent.learner, "learn", learn_and_note)
    monkeypatch.setattr(agent.actors, "rate_spreads", spreads_and_note)
    agent.learn(3 * 5 * 6)
    agent.dump_logs()  # at any time: what the store holds is then not what was learned from
    assert len(shown) == len(learned) == 3
    assert all(torch.equal(one, other) for one, other in zip(shown, learned, strict=True))
