"""How much a policy depends on each of its weights: diagonals of the Fisher information of an actor-critic.

Of the distribution that the policy gives to actions, and of the value taken as the mean of a normal distribution whose
precision is the value loss's weight c_V: at a step with history h,

    F_i = E_a[(d log pi(a|h) / d theta_i)^2] + c_V (dV(h) / d theta_i)^2
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.losses import action_log_probs, policy_gradient_loss, value_loss
from agents.retention.weights import Tensors, Weights
from agents.rollout import Batch
from agents.vtrace import vtrace
from common.config import OneOf, Range
from policies import Policy, PolicyOutput

if TYPE_CHECKING:
    from agents.learner import Learner

GROUP = 16
"""Unrolls of a backward pass."""
FISHERS = ("sampled", "published", "exact")


@dataclass(frozen=True)
class FisherConfig:
    """How sensitivities are measured.

    Attributes:
        fisher: sampled: actions drawn anew, unbiased; published: the gradient of the task's loss, squared after
            summing over a batch, as in CORA; exact: all actions, a step at a time, which takes very long.
        fisher_draws: sampled: draws from each forward pass.
        protect_value: whether what the value depends on counts too.
    """

    fisher: Annotated[str, OneOf(FISHERS)] = "sampled"
    fisher_draws: Annotated[int, Range(1, 1000)] = 1
    protect_value: bool = True


def measured(config: FisherConfig, learner: Learner, weights: Weights, rollouts: Iterable[Batch]) -> Tensors:
    """The Fisher information of `weights` on `rollouts`, per step, as `config` wants it."""
    batches, value_cost = groups(rollouts), learner.config.value_cost if config.protect_value else 0.0
    if config.fisher == "published":
        return published(learner, weights, batches, config.protect_value)
    if config.fisher == "exact":
        return exact(learner.policy, weights, batches, value_cost)
    draws = config.fisher_draws
    return sampled(learner.policy, weights, batches, value_cost, learner.replaying, draws)


def groups(rollouts: Iterable[Batch], size: int = GROUP) -> Iterator[Batch]:
    """The unrolls of all rollouts, at most `size` together."""
    for rollout in rollouts:
        for envs in torch.arange(rollout.actions.shape[1], device=rollout.actions.device).split(size):
            yield rollout.select(envs)


def sampled(
    policy: Policy,
    weights: Weights,
    batches: Iterable[Batch],
    value_cost: float,
    generator: torch.Generator,
    draws: int = 1,
) -> Tensors:
    """An unbiased estimate from one backward pass for each draw of a batch of whole unrolls.

    The gradient of sum_t [log pi(a_t|h_t) + sqrt(c_V) e_t V(h_t)], with a_t drawn from pi and e_t from N(0, 1): terms
    of different steps are independent and have mean zero, given what was recorded, so the mean of its square is the sum
    of the steps' Fisher informations, although it sums before it squares. `generator` is on the CPU.
    """
    found, steps = weights.zeros(), 0
    for batch in batches:
        output = output_of(policy, batch)
        for draw in range(draws):
            objective = drawn_score(output, value_cost, generator)
            _add_squares(found, weights, objective, keep_graph=draw + 1 < draws)
            steps += batch.actions.numel()
    return [tensor / max(steps, 1) for tensor in found]


def drawn_score(output: PolicyOutput, value_cost: float, generator: torch.Generator) -> Tensor:
    """The objective of `sampled`, with a draw for each step."""
    logits, value = output.logits, output.value
    # Drawn on the CPU, so that every device draws the same. Gumbel's trick.
    noise = torch.rand(logits.shape, generator=generator).clamp_min(1e-20).to(logits.device)
    actions = (logits.detach() - (-noise.log()).log()).argmax(-1)
    objective = action_log_probs(logits, actions).sum()
    if value_cost:
        factors = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
        objective = objective + value_cost**0.5 * (factors * value).sum()
    return objective


def published(
    learner: Learner, weights: Weights, batches: Iterable[Batch], protect_value: bool = True
) -> Tensors:
    """Squares of the gradient of the policy's and the value's losses on whole batches (CORA's EWC), per step.

    Biased upwards by the square of the mean gradient, and as large as the advantages are.
    """
    config = learner.config
    found, count = weights.zeros(), 0
    for batch in batches:
        output = output_of(learner.policy, batch, last=True)
        logits, values, bootstrap = output.logits[:-1], output.value[:-1], output.value[-1]
        log_probs = action_log_probs(logits, batch.actions)
        discounts = config.discount * (~batch.dones).to(values.dtype)
        estimates = vtrace(
            batch.log_probs, log_probs.detach(), batch.rewards, discounts, values.detach(), bootstrap.detach()
        )
        loss = policy_gradient_loss(log_probs, estimates.weighted_advantages).sum()
        if protect_value:
            loss = loss + config.value_cost * value_loss(values, estimates.targets).sum()
        squares = weights.zeros()
        _add_squares(squares, weights, loss)
        torch._foreach_add_(found, squares, alpha=1.0 / batch.actions.numel())
        count += 1
    return [tensor / max(count, 1) for tensor in found]


def exact(policy: Policy, weights: Weights, batches: Iterable[Batch], value_cost: float) -> Tensors:
    """All actions, weighted by their probabilities, and every step by itself."""
    found, steps = weights.zeros(), 0
    for batch in batches:
        output = output_of(policy, batch)
        log_probs = F.log_softmax(output.logits, -1)
        for step in torch.cartesian_prod(*[torch.arange(n) for n in batch.actions.shape]):
            t, env = int(step[0]), int(step[1])
            for log_prob in log_probs[t, env]:
                _add_squares(found, weights, log_prob, float(log_prob.detach().exp()), keep_graph=True)
            if value_cost:
                _add_squares(found, weights, output.value[t, env], value_cost, keep_graph=True)
        steps += batch.actions.numel()
    return [tensor / max(steps, 1) for tensor in found]


def output_of(policy: Policy, batch: Batch, last: bool = False) -> PolicyOutput:
    """What the policy says about the unrolls; with `last`, about the observation after their last action too."""
    end = len(batch.rgb) if last else -1
    output: PolicyOutput = policy(
        batch.rgb[:end], batch.reward_input[:end], batch.initial_state, batch.episode_start[:end]
    )
    return output


def _add_squares(
    found: Tensors, weights: Weights, objective: Tensor, factor: float = 1.0, keep_graph: bool = False
) -> None:
    gradients = torch.autograd.grad(objective, weights.parameters, retain_graph=keep_graph, allow_unused=True)
    for total, gradient in zip(found, gradients, strict=True):
        if gradient is not None:
            total.addcmul_(gradient, gradient, value=factor)
