"""The learner's seams: what a method of continual learning adds, and what several processes sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agents import IMPALA, PPO, Agent, ImpalaConfig
from agents.exchange import Exchange
from agents.learner import Interrupted, Learner
from agents.numerics import NotFinite
from agents.retention import Retention
from agents.rollout import Batch
from policies import PolicyConfig, PolicyOutput

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]
MakeBatch = Callable[..., Batch]

SMALL: dict[type[Agent], dict[str, Any]] = {
    IMPALA: {"rollout_steps": 5, "batch_unrolls": 2},
    PPO: {"rollout_steps": 5, "minibatches": 2, "epochs": 2},
}
BOTH = pytest.mark.parametrize("algorithm", [IMPALA, PPO])


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class EverySeam(Retention):
    """Writes down each call, and changes the learning at each seam by amounts that can be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.path_length = 0.0
        self.committed = 0
        self.failing = False

    def attach(self, learner: Learner) -> None:
        self.parameter = learner.policy.actor.bias
        self.seen: list[Tensor] = []

    def prepare(self, rollout: Batch) -> Batch:
        self.calls.append("prepare")
        return rollout

    def terms(self, batch: Any, output: PolicyOutput) -> dict[str, Tensor]:
        self.calls.append("terms")
        return {"anchor_loss": output.value.square().mean()}

    def replay(self, scale: float) -> dict[str, Tensor]:
        self.calls.append("replay")
        before = self.parameter.grad.clone()  # type: ignore[union-attr]
        (scale * self.parameter.sum()).backward()  # type: ignore[no-untyped-call]
        self.seen.append(self.parameter.grad - before)  # type: ignore[operator]
        return {"replayed": self.parameter.sum()}

    def see_gradients(self, scale: float) -> None:
        self.calls.append("see_gradients")

    def add_gradients(self, scale: float) -> dict[str, Tensor]:
        self.calls.append("add_gradients")
        assert self.parameter.grad is not None
        self.parameter.grad += 2 * scale
        return {}

    def after_step(self) -> None:
        self.calls.append("after_step")
        self.path_length += 1.0
        if self.failing:
            raise Interrupted

    def commit(self, rollout: Batch) -> None:
        self.calls.append("commit")
        self.committed += 1

    def state(self) -> dict[str, Any]:
        return {"path_length": self.path_length, "committed": self.committed}

    def load_state(self, state: dict[str, Any]) -> None:
        self.path_length, self.committed = state["path_length"], state["committed"]

    def snapshot(self) -> dict[str, Any]:
        return {"path_length": self.path_length}


@BOTH
def test_a_method_is_called_at_every_seam_in_order(
    algorithm: type[Agent], tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    method = EverySeam()
    agent = algorithm(tiny("lstm"), toy(4), retention=method, seed=0, **SMALL[algorithm])
    metrics = agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    updates = agent.learner.updates
    update = ["terms", "replay", "see_gradients", "add_gradients", "after_step"]
    assert method.calls == ["prepare", *update * updates, "commit"]
    assert metrics is not None
    assert metrics["anchor_loss"] > 0.0
    scale = 10.0 if algorithm is IMPALA else 1.0  # steps of a batch where losses are sums
    for added in method.seen:
        torch.testing.assert_close(added, torch.full_like(added, scale))


@BOTH
def test_terms_and_gradients_are_part_of_the_step(
    algorithm: type[Agent], tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    """What the seams add equals the gradient of the loss with all of it written out."""
    settings = {**SMALL[algorithm], "max_grad_norm": 1e9}
    agent = algorithm(tiny("lstm"), toy(4), retention=EverySeam(), seed=0, **settings)
    plain = algorithm(tiny("lstm"), toy(4), seed=0, **settings)
    batch = next(agent.learner.batches(random_batch(agent.policy, 5, 4)))
    seen: dict[str, Tensor] = {}

    def step() -> None:
        seen.update(
            {name: p.grad.clone() for name, p in agent.policy.named_parameters() if p.grad is not None}
        )

    agent.optimizer.step = step  # type: ignore[assignment]
    agent.learner.batches = lambda rollout: iter([batch])  # type: ignore[method-assign]
    agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    losses, scale = plain.learner.losses(batch), plain.learner.loss_scale(batch)
    written_out = (
        losses.total + scale * losses.output.value.square().mean() + 3 * scale * plain.policy.actor.bias.sum()
    )
    written_out.backward()  # type: ignore[no-untyped-call]
    for name, parameter in plain.policy.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad, rtol=1e-4, atol=1e-6)


@BOTH
def test_a_phase_that_is_undone_undoes_the_method_too(
    algorithm: type[Agent], tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    method = EverySeam()
    agent = algorithm(tiny("lstm"), toy(4), retention=method, seed=0, **SMALL[algorithm])
    learner = agent.learner
    learner.learn(random_batch(agent.policy, 5, 4), 0)
    before, path, shuffling = weights(learner), method.path_length, learner.shuffling.get_state()
    method.failing = True
    with pytest.raises(Interrupted):
        learner.learn(random_batch(agent.policy, 5, 4), 0)
    assert equal(weights(learner), before)
    assert method.path_length == path
    assert method.committed == 1
    assert torch.equal(learner.shuffling.get_state(), shuffling)


def test_a_checkpoint_within_a_phase_holds_the_method_as_it_was_before(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    method = EverySeam()
    agent = IMPALA(tiny("lstm"), toy(4), retention=method, seed=0, **SMALL[IMPALA])
    within: list[dict[str, Any]] = []
    add_gradients = method.add_gradients

    def saving(scale: float) -> dict[str, Tensor]:
        said = add_gradients(scale)
        within.append(agent.learner.state()["retention"])
        return said

    method.add_gradients = saving  # type: ignore[method-assign]
    agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    assert within == [{"path_length": 0.0, "committed": 0}] * 2
    assert agent.learner.state()["retention"] == {"path_length": 2.0, "committed": 1}


def test_a_method_survives_a_checkpoint(tiny: Tiny, toy: MakeEnv, tmp_path: Path) -> None:
    agent = IMPALA(tiny("lstm"), toy(4), retention=EverySeam(), seed=0, **SMALL[IMPALA])
    agent.learn(3 * 20)
    agent.save(tmp_path / "a")
    method = EverySeam()
    IMPALA.load(tmp_path / "a", retention=method)
    assert method.state() == {"path_length": 6.0, "committed": 3}


class Together(Exchange):
    """Two processes in one: gradients of the first are kept, and added to those of the second."""

    def __init__(self, kept: list[Tensor] | None = None, stop: bool = False) -> None:
        self.kept, self.stop = kept, stop

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        if self.kept is None:
            self.kept = [gradient.clone() for gradient in gradients]  # type: ignore[union-attr]
            return
        for gradient, other in zip(gradients, self.kept, strict=True):
            gradient += other

    def any(self, flag: bool) -> bool:
        return flag or self.stop


@pytest.mark.parametrize("core", ["feedforward", "srwm"])
def test_gradients_of_two_halves_sum_to_those_of_the_whole(
    core: str, tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    """IMPALA's losses are sums: one step on the summed gradients of two shards is one step on all of it."""
    settings: dict[str, Any] = {"seed": 0, "rollout_steps": 5}
    whole, first, second = (IMPALA(tiny(core), toy(4), **settings) for _ in range(3))
    batch = random_batch(whole.policy, 5, 4)
    metrics = whole.learner.learn(batch, 0)
    first.learner.exchange = Together()
    first.learner.learn(batch.select(torch.tensor([0, 1])), 0)
    second.learner.exchange = Together(first.learner.exchange.kept)
    summed = second.learner.learn(batch.select(torch.tensor([2, 3])), 0)
    assert metrics is not None
    assert summed is not None
    assert summed["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-5)
    for name, tensor in weights(whole.learner).items():
        torch.testing.assert_close(weights(second.learner)[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_stop_request_in_another_process_stops_this_one(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, **SMALL[IMPALA])
    agent.learner.exchange = Together(stop=True)
    before = weights(agent.learner)
    with pytest.raises(Interrupted):
        agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    assert equal(weights(agent.learner), before)


def test_a_loss_that_is_not_finite_while_its_gradient_is_undoes_the_phase(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, **SMALL[IMPALA])
    losses = agent.learner.losses

    def infinite(batch: Batch) -> Any:
        found = losses(batch)
        return found._replace(total=found.total + float("inf"))

    agent.learner.losses = infinite  # type: ignore[method-assign]
    before = weights(agent.learner)
    with pytest.raises(NotFinite, match="not finite: the loss"):
        agent.learner.learn(random_batch(agent.policy, 5, 4), 0)
    assert equal(weights(agent.learner), before)


def test_hyperparameters_that_do_not_fit_are_not_called_a_damaged_file(
    tiny: Tiny, toy: MakeEnv, tmp_path: Path
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, **SMALL[IMPALA])
    agent.save(tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"^batch_unrolls must divide the number of environments, but 2 .* 3$"
    ):
        IMPALA.load(tmp_path / "a", toy(3))


def test_a_bug_while_an_agent_is_built_keeps_its_traceback(
    tiny: Tiny, toy: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, **SMALL[IMPALA])
    agent.save(tmp_path / "a")

    def broken(learner: Any) -> Any:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(IMPALA.learner_class, "make_optimizer", broken)
    with pytest.raises(KeyError, match="a bug of ours"):
        IMPALA.load(tmp_path / "a", toy(4))


@given(rollout=st.integers(1, 400), asked=st.integers(1, 400))
def test_rollouts_are_cut_into_as_few_equal_unrolls_as_possible(rollout: int, asked: int) -> None:
    config = ImpalaConfig(rollout_steps=rollout, unroll_steps=asked)
    cuts = [count for count in range(1, rollout + 1) if rollout % count == 0 and rollout // count <= asked]
    fewest = -(-rollout // asked)
    if cuts[0] <= 2 * fewest:
        assert (config.unrolls, config.horizon, config.problems(64)) == (cuts[0], rollout // cuts[0], [])
    else:
        (problem,) = config.problems(64)
        assert "cannot be cut into equal unrolls" in problem
