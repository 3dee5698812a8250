"""CLEAR: what is replayed, with which state and which gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents import IMPALA
from agents.acting import Actor
from agents.learner import Learner
from agents.losses import action_log_probs
from agents.retention import RetentionConfig
from agents.retention.clear import cloning
from agents.rollout import Batch
from policies import Policy, PolicyConfig

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]
MakeEnv = Callable[..., Any]
Tiny = Callable[..., PolicyConfig]

CORES = ["feedforward", "lstm", "deltanet", "sr_delta", "srwm"]


@torch.no_grad()
def played(policy: Policy, batch: Batch) -> Batch:
    """The batch as `policy` itself would have played it: what it said of each step, one step at a time."""
    state, logits, values = batch.initial_state, [], []
    for t in range(len(batch.actions)):
        now = slice(t, t + 1)
        output = policy(batch.rgb[now], batch.reward_input[now], state, batch.episode_start[now])
        state = output.state
        logits.append(output.logits[0])
        values.append(output.value[0])
    said = torch.stack(logits)
    return replace(
        batch, logits=said, values=torch.stack(values), log_probs=action_log_probs(said, batch.actions)
    )


def gradients(learner: Learner) -> list[Tensor]:
    return [p.grad.clone() for p in learner.policy.parameters() if p.grad is not None]


@pytest.mark.parametrize("algorithm", ["impala", "appo"])
@pytest.mark.parametrize("core", CORES)
def test_replaying_the_fresh_unrolls_doubles_the_gradient(
    core: str, algorithm: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    """Under unchanged weights cloning costs nothing, and the loss on replayed unrolls is that on fresh ones."""
    plain_appo = {"clip_range": None, "normalize_advantages": False} if algorithm == "appo" else {}
    made = learner("clear", core, algorithm, agent=plain_appo)
    batch = played(made.policy, random_batch(made.policy, 6, 4))
    method: Any = made.retention
    losses = made.losses(batch)
    method.terms(batch, losses.output)
    losses.total.backward()  # type: ignore[no-untyped-call]
    once = gradients(made)
    logged = method.learn_from(batch, made.loss_scale(batch))
    for single, both in zip(once, gradients(made), strict=True):
        torch.testing.assert_close(both, 2 * single, rtol=1e-3, atol=1e-4)
    assert abs(float(logged["clear_policy_cloning"].detach())) < 1e-6
    assert float(logged["clear_value_cloning"].detach()) < 1e-9


def test_cloning_written_out(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("clear", core="lstm")
    batch = random_batch(made.policy, 3, 2)
    output = made.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
    divergence = squares = 0.0
    assert batch.logits is not None
    for t in range(3):
        for env in range(2):
            mu, pi = batch.logits[t, env].softmax(0), output.logits[t, env].softmax(0)
            divergence += float((mu * (mu / pi).log()).sum().detach())
            squares += float((output.value[t, env] - batch.values[t, env]).square().detach())
    found = cloning(output, batch.logits, batch.values)
    assert float(found[0].detach()) == pytest.approx(divergence / 6, rel=1e-5)
    assert float(found[1].detach()) == pytest.approx(squares / 6, rel=1e-5)


@pytest.mark.parametrize("core", CORES)
def test_a_stored_unroll_says_what_was_said_in_acting(core: str, tiny: Tiny, toy: MakeEnv) -> None:
    """State, frames, episode starts and logits go together: under unchanged weights they are the same again."""
    agent = IMPALA(tiny(core), toy(4), retention="clear", seed=0, rollout_steps=7)
    method: Any = agent.retention
    agent.learn(3 * 28)
    agent.retention.store.__init__(lambda row_bytes: 100, torch.Generator())  # type: ignore[attr-defined,misc]
    for batch in agent._consolidation_rollouts(3):
        method.commit(batch)
    sequences, state = method.store.sample(12, torch.device("cpu"))
    stored = Batch(**sequences, initial_state=state, final_state={})
    assert stored.episode_start[1:].any()
    with torch.no_grad():
        output = agent.policy(stored.rgb, stored.reward_input, stored.initial_state, stored.episode_start)
    torch.testing.assert_close(output.logits[:-1], stored.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.value[:-1], stored.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "asked", "follows"),
    [
        ("impala", None, True),
        ("appo", None, True),
        ("ppo", None, False),
        ("ppo", True, True),
        ("impala", False, False),
    ],
)
def test_rewards_are_followed_where_it_makes_sense(
    algorithm: str, asked: bool | None, follows: bool, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("clear", "lstm", algorithm, replay_gradient=asked)
    batch = played(made.policy, random_batch(made.policy, 6, 4))
    method: Any = made.retention
    method._fresh_steps = 24
    method.learn_from(batch, 1.0)
    size = float(torch.stack([g.norm() for g in gradients(made)]).norm())
    assert (size > 1e-2) == follows  # cloning alone is at its minimum


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("algorithm", ["impala", "ppo"])
def test_as_many_steps_are_replayed_as_asked(
    ratio: float, algorithm: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    settings = {"minibatches": 2, "epochs": 2} if algorithm == "ppo" else {}
    for core in ("feedforward", "lstm"):  # PPO cuts the former into single steps
        made = learner("clear", core, algorithm, agent=settings, replay_ratio=ratio)
        method: Any = made.retention
        counts: list[int] = []
        sample = method.store.sample

        def counting(count: int, device: Any, sample: Any = sample, counts: Any = counts) -> Any:
            counts.append(count)
            return sample(count, device)

        method.store.sample = counting
        for seed in range(3):
            made.learn(random_batch(made.policy, 6, 8, seed), 0)
        fresh = 4 if algorithm == "ppo" else 8
        updates_per_phase = 4 if algorithm == "ppo" else 1
        assert (
            counts == [round(ratio * fresh)] * updates_per_phase * 2
        )  # nothing is stored in the first phase


def test_the_state_that_replay_begins_with(learner: MakeLearner, random_batch: MakeBatch) -> None:
    stored, fresh, warmed = (
        learner("clear", "lstm", replay_state=how).retention for how in ("stored", "fresh", "2")
    )
    batch = random_batch(stored.learner.policy, 6, 4, end_probability=0.0)  # type: ignore[attr-defined]
    assert stored._started(batch) is batch  # type: ignore[attr-defined]
    assert not any(t.any() for t in fresh._started(batch).initial_state.values())  # type: ignore[attr-defined]
    cut = warmed._started(batch)  # type: ignore[attr-defined]
    assert (len(cut.rgb), len(cut.actions)) == (5, 4)
    assert torch.equal(cut.rgb, batch.rgb[2:])
    policy = warmed.learner.policy  # type: ignore[attr-defined]
    actor = Actor(policy, 4, torch.device("cpu"), torch.Generator())
    actor.state = batch.initial_state
    for t in range(2):
        actor.step({"rgb": batch.rgb[t], "reward": batch.reward_input[t]}, batch.episode_start[t])
    for name, tensor in actor.state.items():
        torch.testing.assert_close(cut.initial_state[name], tensor)


def test_a_warm_up_longer_than_an_unroll_is_refused(tiny: Tiny, toy: MakeEnv) -> None:
    with pytest.raises(ValueError, match=r"retain.replay_state takes 6 steps of unrolls that have 6"):
        IMPALA(tiny(), toy(4), retention="clear", retain=RetentionConfig(replay_state="6"), rollout_steps=6)
