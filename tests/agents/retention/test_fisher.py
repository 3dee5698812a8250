"""The estimates of the Fisher information against its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from agents.learner import Learner
from agents.losses import action_log_probs
from agents.retention import fisher
from agents.retention.weights import Weights
from agents.rollout import Batch
from agents.vtrace import vtrace
from policies import TaskConfig

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]
Double = Callable[[Batch], Batch]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("core", ["srwm", "lstm", "feedforward"])
def test_sampled_is_an_unbiased_estimate_of_exact(
    core: str, learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    """On unrolls with resets inside, within the errors of many draws."""
    made = learner(core=core, double=True)
    weights = Weights(made.policy.named_parameters())
    batch = double(random_batch(made.policy, 5, 3, end_probability=0.4))
    assert batch.episode_start[1:-1].any()
    exact = flat(fisher.exact(made.policy, weights, [batch], 0.5))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [flat(fisher.sampled(made.policy, weights, [batch], 0.5, generator)) for _ in range(400)]
    )
    mean, error = draws.mean(0), draws.std(0) / 400**0.5
    z = ((mean - exact) / error.clamp_min(1e-12))[exact > 1e-10]
    # Weights share draws, so their errors go together: their spread is what can be asked for.
    assert z.abs().median() < 1.5
    assert (z.abs() < 4.0).double().mean() > 0.98
    torch.testing.assert_close(mean.sum(), exact.sum(), rtol=0.1, atol=0.0)


def test_exact_is_a_sum_over_actions_and_steps(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    """The definition, with a forward pass of its own for each step, action by action."""
    made = learner(core="lstm", double=True)
    policy, weights = made.policy, Weights(made.policy.named_parameters())
    batch = double(random_batch(policy, 3, 2))
    total = torch.zeros_like(flat(weights.zeros()))
    for env in range(2):
        one = batch.select(torch.tensor([env]))
        for t in range(3):
            for action in [*range(policy.num_actions), None]:
                output = policy(
                    one.rgb[: t + 1], one.reward_input[: t + 1], one.initial_state, one.episode_start[: t + 1]
                )
                log_probs = output.logits[t, 0].log_softmax(-1)
                what = output.value[t, 0] if action is None else log_probs[action]
                weight = 0.3 if action is None else float(log_probs[action].detach().exp())
                parts = torch.autograd.grad(what, weights.parameters, allow_unused=True)
                pairs = zip(weights.parameters, parts, strict=True)
                grads = [torch.zeros_like(p) if g is None else g for p, g in pairs]
                total += weight * flat(grads).square()
    torch.testing.assert_close(flat(fisher.exact(policy, weights, [batch], 0.3)), total / 6)


def test_published_is_the_squared_gradient_of_the_batch(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    made = learner(core="lstm", double=True)
    policy, weights, config = made.policy, Weights(made.policy.named_parameters()), made.config
    batches = [double(random_batch(policy, 4, 2, seed)) for seed in (0, 1)]
    total = torch.zeros_like(flat(weights.zeros()))
    for batch in batches:
        output = policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        log_probs = action_log_probs(output.logits[:-1], batch.actions)
        values = output.value
        discounts = config.discount * (~batch.dones).double()
        targets = vtrace(batch.log_probs, log_probs, batch.rewards, discounts, values[:-1], values[-1])
        loss = torch.zeros((), dtype=torch.float64)
        for t in range(4):
            for env in range(2):
                loss = loss - log_probs[t, env] * targets.weighted_advantages[t, env]
                error = targets.targets[t, env] - values[t, env]
                loss = loss + config.value_cost * 0.5 * error**2
        gradients = torch.autograd.grad(loss, weights.parameters, allow_unused=True)
        total += flat(list(gradients)).square() / 8  # type: ignore[arg-type]
    torch.testing.assert_close(flat(fisher.published(made, weights, batches)), total / 2)


def test_weights_that_cannot_matter_count_nothing(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    """With a gradient horizon of one step, SRWM's columns that make queries, keys and rates get no gradient."""
    made = learner(core="srwm", double=True, policy={"bptt_span": 1})
    weights = Weights(made.policy.named_parameters())
    batch = double(random_batch(made.policy, 5, 3))
    found = fisher.sampled(made.policy, weights, [batch], 0.5, torch.Generator().manual_seed(0))
    w0 = weights.named(found)["core.layers.0.w0"]
    width = w0.shape[1]
    assert w0[..., :width].any()
    assert not w0[..., width:].any()


def test_units_that_are_silent_count_nothing(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    """What a task's gates shut does not matter to it, and a penalty leaves it to the others."""
    tasks = TaskConfig(2, "told", "per-task", gated_share=0.5, gated_apart=True)
    made = learner(core="lstm", double=True, policy={"tasks": tasks})
    weights = Weights(made.policy.named_parameters())
    batch = double(random_batch(made.policy, 5, 3))
    found = fisher.sampled(made.policy, weights, [batch], 0.5, torch.Generator().manual_seed(0))
    masks = made.policy.gate.masks
    assert masks is not None
    into_units = weights.named(found)["encoder.linear.weight"]
    assert not into_units[~masks[0]].any()
    assert into_units[masks[0]].any()


def test_the_value_is_left_out_if_asked(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner()
    weights = Weights(made.policy.named_parameters())
    found = [
        weights.named(
            fisher.measured(
                fisher.FisherConfig(kind, protect_value=False),
                made,
                weights,
                [random_batch(made.policy, 3, 2)],
            )
        )
        for kind in fisher.FISHERS
    ]
    for parts in found:
        assert not parts["critic.weight"].any()
        assert parts["actor.weight"].any()


def test_batches_of_another_size_estimate_the_same(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    """A mean over steps: twice the unrolls leave it as it is."""
    made = learner(core="lstm", double=True)
    weights = Weights(made.policy.named_parameters())
    batch = double(random_batch(made.policy, 4, 3))
    twice = batch.select(torch.tensor([0, 1, 2, 0, 1, 2]))
    one, two = (flat(fisher.exact(made.policy, weights, [b], 0.5)) for b in (batch, twice))
    torch.testing.assert_close(one, two)
    parts = list(fisher.groups([twice], 4))
    assert [part.actions.shape[1] for part in parts] == [4, 2]
    torch.testing.assert_close(flat(fisher.exact(made.policy, weights, parts, 0.5)), one)


def test_more_draws_of_a_batch_mean_less_noise(
    learner: MakeLearner, random_batch: MakeBatch, double: Double
) -> None:
    made = learner(core="lstm", double=True)
    weights = Weights(made.policy.named_parameters())
    batch = double(random_batch(made.policy, 4, 3))
    exact = flat(fisher.exact(made.policy, weights, [batch], 0.5))
    errors = []
    for draws in (1, 64):
        generator = torch.Generator().manual_seed(0)
        found = [flat(fisher.sampled(made.policy, weights, [batch], 0.5, generator, draws)) for _ in range(8)]
        errors.append(float((torch.stack(found) - exact).norm()))
    assert errors[1] < 0.3 * errors[0]


def test_replaced_numbers_do_not_matter(learner: MakeLearner, random_batch: MakeBatch) -> None:
    """What was done and earned in the rollout is not looked at: actions are drawn anew."""
    made = learner()
    weights = Weights(made.policy.named_parameters())
    batch = random_batch(made.policy, 4, 2)
    other = replace(batch, actions=1 - batch.actions.clamp_max(1), rewards=batch.rewards + 5.0)
    found = [
        flat(fisher.sampled(made.policy, weights, [b], 0.5, torch.Generator().manual_seed(0)))
        for b in (batch, other)
    ]
    assert torch.equal(*found)
