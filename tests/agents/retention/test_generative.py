"""Generative replay: what is generated, what it is held to, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from agents.learner import Interrupted, Learner
from agents.retention.clear import cloning
from agents.retention.generator import Generator, GeneratorSizes, Posterior, divergence
from agents.rollout import Batch
from helpers import assert_same

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]

CORES = ["feedforward", "lstm", "deltanet", "sr_delta", "srwm"]
SIZES = GeneratorSizes(data=7, seen=5, modes=3, image=False, conditional=True, gated_share=0.7, gate_seed=1)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rollouts(batch: Batch) -> Callable[[int], Any]:
    return lambda count: iter([batch])


# The generator


def test_the_divergence_is_that_of_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, other, other_log = torch.randn(4, 3, 2, 6, generator=generator).unbind(0)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    two = torch.distributions.Normal(other, (0.5 * other_log).exp())
    wanted = torch.distributions.kl_divergence(one, two).sum(-1)
    torch.testing.assert_close(divergence(Posterior(mean, log_variance, mean), other, other_log), wanted)


def test_what_a_step_costs() -> None:
    """Starts are compared with the task's start, others with the step before; a step without one has no prior."""
    model = Generator(SIZES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=random())
    data, seen = torch.rand(3, 2, 7), torch.randn(3, 2, 5)
    starts = torch.tensor([[True, False], [False, True], [False, False]])
    tasks = torch.tensor([1, 2])
    error, prior = model.losses(data, seen, starts, tasks, random())
    found = model.encode(seen, random())
    torch.testing.assert_close(error, (model.decode(found.z, tasks) - data).square().mean(-1))
    assert float(prior[0, 1].detach()) == 0.0
    for t, b in ((0, 0), (1, 1)):
        mean, log_variance = model.start[tasks[b]].chunk(2, -1)
        one = Posterior(*(part[t, b] for part in found))
        torch.testing.assert_close(prior[t, b], divergence(one, mean, log_variance) / 7)
    for t, b in ((1, 0), (2, 0), (2, 1)):
        mean, log_variance = model.moved(found.z[t - 1, b : b + 1], tasks[b : b + 1])
        one = Posterior(*(part[t, b : b + 1] for part in found))
        torch.testing.assert_close(prior[t, b], divergence(one, mean, log_variance)[0] / 7)


def test_data_are_of_their_kind_and_gates_are_of_their_task() -> None:
    z = torch.randn(4, 2, 100, generator=random())
    features, pixels = Generator(SIZES), Generator(replace(SIZES, image=True))
    for model in (features, pixels):
        data = model.decode(z, torch.tensor([0, 1]))
        assert float(data[..., :-1].min().detach()) >= 0.0
        assert float(data[..., -1].abs().max().detach()) <= 1.0
    assert float(pixels.decode(z, torch.tensor([0, 1]))[..., :-1].max().detach()) <= 1.0
    assert features.masks.sum(-1).tolist() == [[120] * 3] * 2
    features.decode(z, torch.tensor([1, 1])).sum().backward()  # type: ignore[no-untyped-call]
    gradient = features.decode1.weight.grad
    assert gradient is not None
    assert not gradient[~features.masks[0, 1]].any()


def test_unconditional_latents_know_no_task() -> None:
    model = Generator(replace(SIZES, conditional=False, gated_share=0.0))
    one, two = (model.generate(torch.tensor([task]), 5, random()) for task in (0, 2))
    assert torch.equal(one, two)


def test_it_learns_what_two_tasks_look_like() -> None:
    """Features of two tasks that differ, told apart after some training by their means."""
    torch.manual_seed(0)
    model = Generator(replace(SIZES, gated_share=0.0))
    optimizer, noise = torch.optim.Adam(model.parameters(), 3e-3), random()
    tasks = torch.tensor([0, 1] * 16)
    centres = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0.5], [0, 1.0, 1, 0, 0, 0, -0.5]])
    for _ in range(300):
        data = (centres[tasks] + 0.05 * torch.randn(1, 32, 7, generator=noise)).clamp_min(-1)
        optimizer.zero_grad()
        starts = torch.ones(1, 32, dtype=torch.bool)
        error, prior = model.losses(data, data[..., :5], starts, tasks, noise)
        (error + prior).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for task in (0, 1):
        made = model.generate(torch.full((64,), task), 1, noise)[0].mean(0)
        assert float((made - centres[task]).norm()) < 0.5 < float((made - centres[1 - task]).norm())


# The method


@pytest.mark.parametrize("level", ["features", "pixels", "features-kept"])
@pytest.mark.parametrize("core", CORES)
def test_nothing_changes_before_the_first_task_is_left(
    core: str, level: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    plain, made = learner("none", core), learner("generative", core, generative_level=level)
    for seed in range(2):
        batch = random_batch(plain.policy, 6, 4, seed)
        for each in (plain, made):
            each.learn(batch, 0)
    assert_same(dict(plain.policy.state_dict()), dict(made.policy.state_dict()))
    method: Any = made.retention
    method.end_task(0, rollouts(batch))
    method.begin_task(1)
    for each in (plain, plain, made, made):  # at the first update, the policy is still what it was
        metrics = each.learn(batch, 0)
    assert metrics is not None
    assert metrics["generative_replay"] > -1e-6
    assert not torch.equal(plain.policy.actor.weight, made.policy.actor.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["features", "pixels"])
@pytest.mark.parametrize("core", ["feedforward", "srwm"])
def test_nothing_pulls_while_the_policy_says_what_it_said(
    core: str, level: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    made = learner("generative", core, generative_level=level)
    batch, method = random_batch(made.policy, 6, 4), made.retention
    made.learn(batch, 0)
    method.end_task(0, rollouts(batch))
    method.begin_task(1)
    left, method._fresh_steps = method._left, 24  # type: ignore[attr-defined]
    data, starts, tasks = method._generated(left)  # type: ignore[attr-defined]
    loss, _ = method._replay_loss(left, data, starts, tasks)  # type: ignore[attr-defined]
    assert abs(float(loss.detach())) < 1e-6
    assert data.shape[:2] == ((1, 80) if core == "feedforward" else (20, 4))
    assert starts[0].all()
    assert not starts[1:].any()
    assert tasks.tolist() == [0] * data.shape[1]
    with torch.no_grad():
        made.policy.actor.bias += torch.arange(3.0)  # type: ignore[operator, arg-type]
    moved, new = method._replay_loss(left, data, starts, tasks)  # type: ignore[attr-defined]
    old = left.policy.actor(new.hidden)
    wanted = 4 * F.kl_div(
        (new.logits / 2).log_softmax(-1), (old / 2).log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(moved, wanted.mean(), rtol=1e-4, atol=1e-5)


def test_hard_targets_are_drawn_from_what_was_said(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("generative", "lstm", generative_soft_targets=False)
    batch, method = random_batch(made.policy, 6, 4), made.retention
    made.learn(batch, 0)
    with torch.no_grad():
        made.policy.actor.bias.copy_(torch.tensor([100.0, 0, 0]))  # type: ignore[operator]
    method.end_task(0, rollouts(batch))
    method.begin_task(1)
    method._fresh_steps = 24  # type: ignore[attr-defined]
    generated = method._generated(method._left)  # type: ignore[attr-defined]
    sure, _ = method._replay_loss(method._left, *generated)  # type: ignore[attr-defined]
    assert float(sure.detach()) < 1e-3
    with torch.no_grad():
        made.policy.actor.bias.copy_(torch.tensor([0.0, 100, 0]))  # type: ignore[operator]
    wrong, _ = method._replay_loss(method._left, *generated)  # type: ignore[attr-defined]
    assert float(wrong.detach()) > 50.0


def test_tasks_are_drawn_from_those_left(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("generative", "lstm")
    method: Any = made.retention
    batch = random_batch(made.policy, 6, 40)
    made.learn(batch, 0)
    for task in (0, 1, 2):
        method.begin_task(task)
        method.end_task(task, rollouts(batch))
    method.begin_task(1)  # which comes back
    method._fresh_steps = 240 * 6
    counts = torch.bincount(method._generated(method._left)[2], minlength=3).tolist()
    assert counts[1] == 0
    assert min(counts[0], counts[2]) > 70


@pytest.mark.parametrize("how", ["consolidated", "frozen", "free"])
def test_what_becomes_of_the_encoder(how: str, learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("generative", "lstm", generative_encoder=how, online_ewc_strength=1e9)
    batch, method = random_batch(made.policy, 6, 4), made.retention
    made.learn(batch, 0)
    method.end_task(0, rollouts(batch))
    method.begin_task(1)
    before = made.policy.encoder.linear.weight.detach().clone()
    metrics = [made.learn(random_batch(made.policy, 6, 4, seed), 0) for seed in (1, 2)]
    assert torch.equal(before, made.policy.encoder.linear.weight) == (how == "frozen")
    assert all(
        entry is not None and ("generative_penalty" in entry) == (how == "consolidated") for entry in metrics
    )


@pytest.mark.parametrize("core", CORES)
def test_kept_features_are_cloned_as_clear_clones_frames(
    core: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    """With the encoder as it was, up to the rounding of features to half precision."""
    made = learner("generative", core, generative_level="features-kept")
    method: Any = made.retention
    batch = random_batch(made.policy, 6, 4)
    method.commit(batch)
    stored, state = method._kept.sample(4, torch.device("cpu"))
    kept = made.policy.from_features(stored["features"].float(), state, stored["episode_start"])
    found = cloning(kept, stored["logits"], stored["values"])
    output = made.policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
    assert batch.logits is not None
    for one, other in zip(found, cloning(output, batch.logits, batch.values), strict=True):
        torch.testing.assert_close(one, other, rtol=5e-3, atol=1e-3)
    size = sum(t[0].nbytes for n, t in method._kept.state()["open"].items() if not n.startswith("state/"))
    assert size == 6 * (2 * made.policy.core.input_size + 1 + 4 * 3 + 4)


def test_an_update_that_is_undone_leaves_the_generator(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("generative", "lstm")
    made.learn(random_batch(made.policy, 6, 4), 0)
    before = made.retention.snapshot()
    made.stop_asked = iter([False, False, True]).__next__
    made.batches = lambda rollout: iter([rollout, rollout])  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        made.learn(random_batch(made.policy, 6, 4, 1), 0)
    assert_same(before, made.retention.snapshot())


@pytest.mark.parametrize("core", ["srwm", "lstm"])
def test_the_generator_reads_what_heads_read(
    core: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    """What bypasses the core, too."""
    made = learner("generative", core, policy={"bypass": True})
    metrics = made.learn(random_batch(made.policy, 6, 4), 0)
    made.retention.begin_task(1)
    assert metrics is not None
    assert made.learn(random_batch(made.policy, 6, 4, 1), 0) is not None
