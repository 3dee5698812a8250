from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents import APPO, IMPALA, AppoConfig, ImpalaConfig
from agents.losses import action_log_probs
from agents.rollout import Batch
from policies import PolicyConfig

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]
MakeBatch = Callable[..., Batch]

PUBLISHED = {field.name: getattr(ImpalaConfig(), field.name) for field in fields(ImpalaConfig)}


@pytest.mark.parametrize("core", ["feedforward", "srwm"])
def test_without_clipping_and_with_one_pass_it_is_impala_bit_for_bit(
    core: str, tiny: Tiny, procgen: MakeEnv
) -> None:
    settings: dict[str, Any] = {"rollout_steps": 8, "batch_unrolls": 3}
    impala = IMPALA(tiny(core), procgen(), seed=0, **settings)
    appo = APPO(tiny(core), procgen(), AppoConfig(**PUBLISHED, clip_range=None), seed=0, **settings)
    for agent in (impala, appo):
        agent.learn(4 * 48)
    for name, tensor in impala.policy.state_dict().items():
        assert torch.equal(appo.policy.state_dict()[name], tensor), name


def loss_by_hand(agent: APPO, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """The loss of a batch in float64 with plain loops, and its gradients."""
    config, policy = agent.learner.config, deepcopy(agent.policy).double()
    assert isinstance(config, AppoConfig)
    assert config.clip_range is not None
    state = {name: tensor.double() for name, tensor in batch.initial_state.items()}
    output = policy(batch.rgb, batch.reward_input.double(), state, batch.episode_start)
    steps, num_envs = batch.actions.shape
    ratios, advantages = [], []
    total = torch.zeros((), dtype=torch.float64)
    for b in range(num_envs):
        fixed = [output.value[t, b].item() for t in range(steps + 1)]
        target, weight = [*fixed], []
        for t in range(steps):
            probabilities = output.logits[t, b].softmax(0)
            ratios.append(probabilities[batch.actions[t, b]] / math.exp(batch.log_probs[t, b].item()))
            weight.append(ratios[-1].item())
            total = total + config.entropy_cost * (probabilities * probabilities.log()).sum()
        discount = [0.0 if batch.dones[t, b] else config.discount for t in range(steps)]
        for t in reversed(range(steps)):
            delta = min(config.rho_clip, weight[t]) * (
                batch.rewards[t, b].item() + discount[t] * fixed[t + 1] - fixed[t]
            )
            trace = config.trace_lambda * min(config.c_clip, weight[t])
            target[t] = fixed[t] + delta + discount[t] * trace * (target[t + 1] - fixed[t + 1])
        for t in range(steps):
            advantages.append(batch.rewards[t, b].item() + discount[t] * target[t + 1] - fixed[t])
            total = total + config.value_cost * 0.5 * (target[t] - output.value[t, b]) ** 2
    mean = sum(advantages) / len(advantages)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / (len(advantages) - 1))
    for ratio, advantage in zip(ratios, advantages, strict=True):
        scaled = (advantage - mean) / (deviation + 1e-8)
        clipped = min(max(ratio.item(), 1 - config.clip_range), 1 + config.clip_range)
        total = total - (ratio * scaled if ratio.item() * scaled <= clipped * scaled else clipped * scaled)
    total.backward()
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return total.item(), gradients


def test_loss_and_gradient_are_those_written_by_hand(
    core: str, tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    settings = {"entropy_cost": 0.3, "discount": 0.9, "rho_clip": 1.3, "c_clip": 0.8, "trace_lambda": 0.9}
    agent = APPO(tiny(core), toy(3), seed=1, rollout_steps=4, clip_range=0.3, **settings)
    batch = random_batch(agent.policy, steps=4, num_envs=3, seed=5)
    agent.learner.config = replace(agent.config, batch_unrolls=3, passes=1)
    (steps,) = agent.learner.batches(batch)
    losses = agent.learner.losses(steps)
    losses.total.backward()  # type: ignore[no-untyped-call]
    total, gradients = loss_by_hand(agent, batch)
    assert losses.total.item() == pytest.approx(total, rel=1e-5)
    assert batch.dones.any()
    for name, parameter in agent.policy.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad.double(),
            gradients[name],
            rtol=1e-3,
            atol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_clipping_bounds_how_far_many_passes_move_the_policy(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    moved = {}
    for clip_range in (0.2, None):
        agent = APPO(
            tiny("feedforward"),
            toy(8),
            seed=0,
            rollout_steps=8,
            passes=100,
            learning_rate=3e-3,
            clip_range=clip_range,
        )
        metrics: list[dict[str, float] | None] = []
        learn = agent.learner.learn
        agent.learner.learn = lambda *arguments, learn=learn, metrics=metrics: (  # type: ignore[method-assign]
            metrics.append(learn(*arguments)) or metrics[-1]
        )
        agent.learn(64)
        assert metrics[0] is not None
        moved[clip_range] = metrics[0]["approx_kl"]
    assert moved[0.2] < 0.1 < moved[None], moved


def test_it_learns_which_action_pays(tiny: Tiny, toy: MakeEnv) -> None:
    agent = APPO(tiny("lstm"), toy(), seed=0, rollout_steps=8, learning_rate=3e-3, discount=0.5)
    agent.learn(5_000)
    # Episodes last 6.5 steps on average, so random play earns 2.2 and the best 6.5. IMPALA needs 10 k steps for this.
    assert agent.episode_returns["env"] > 5.5


def test_all_passes_have_the_estimates_of_the_weights_before_them(
    core: str, tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch
) -> None:
    """Estimates are those of whole rollouts, whatever happens to the weights and however rollouts are cut."""
    agent = APPO(tiny(core), toy(5), seed=0, rollout_steps=4, unroll_steps=2, batch_unrolls=1, passes=3)
    learner, rollout = agent.learner, random_batch(agent.policy, 4, 5)
    states = {name: torch.stack([tensor, tensor], 1) for name, tensor in rollout.initial_state.items()}
    with torch.no_grad():
        output = agent.policy(rollout.rgb, rollout.reward_input, rollout.initial_state, rollout.episode_start)
        log_probs = action_log_probs(output.logits[:-1], rollout.actions)
        expected = IMPALA.learner_class.estimate(
            learner, rollout, log_probs, output.value[:-1], output.value[-1]
        )
    seen = []
    for batch in learner.batches(replace(rollout, states=states)):
        seen.append(torch.stack([batch.advantages, batch.returns, batch.values], -1).flatten(0, 1))
        with torch.no_grad():
            for parameter in agent.policy.parameters():
                parameter.mul_(1.1)
    whole = torch.stack([expected.advantages, expected.targets, output.value[:-1]], -1).flatten(0, 1)
    each = torch.cat(seen)
    assert len(seen) == 3 * 10
    for part in each.split(len(whole)):
        torch.testing.assert_close(part[part[:, 0].argsort()], whole[whole[:, 0].argsort()])


@pytest.mark.parametrize(
    ("num_envs", "sizes", "batches"),
    [
        (64, {}, 8),
        (64, {"unroll_steps": 32}, 8),
        (64, {"rollout_steps": 50}, 2),
        (3, {"rollout_steps": 50}, 1),
        (2, {"rollout_steps": 4096}, 2),  # no more than there are unrolls
        (64, {"batch_unrolls": 4}, 16),
    ],
)
def test_updates_have_up_to_2048_steps_unless_told_otherwise(
    num_envs: int, sizes: dict[str, int], batches: int
) -> None:
    config = AppoConfig(**sizes)
    assert config.batches_per_pass(num_envs) == batches
    assert config.problems(num_envs) == []
    assert config.largest_batch(num_envs) == num_envs * config.rollout_steps // batches
