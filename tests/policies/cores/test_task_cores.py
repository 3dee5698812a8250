"""A core for each task: each stream uses its own, and the others neither speak nor learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policies import CORES, ImpalaEncoderConfig, Policy, PolicyConfig, State, TaskConfig
from policies.cores.task_cores import TaskCores
from small_cores import small_core

T, B, K = 4, 6, 3
TASKS = torch.tensor([0, 1, 2, 2, 1, 0])


def made(core: str) -> Policy:
    torch.manual_seed(0)
    tasks = TaskConfig(K, "told", cores="per-task")
    return Policy(
        PolicyConfig(small_core(core), ImpalaEncoderConfig(hidden=16, channels=(4,)), tasks=tasks),
        (8, 8, 3),
        5,
    )


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(256, (T, B, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return rgb, torch.zeros(T, B, 1), torch.rand(T, B, generator=generator) < 0.2


def assert_state(got: State, expected: State, columns: Tensor) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name][columns], tensor[columns])


@pytest.mark.parametrize("core", list(CORES))
def test_each_stream_uses_the_core_of_its_task(core: str) -> None:
    policy = made(core)
    mixed = policy(*inputs()[:2], policy.initial_state(B, task=TASKS), inputs()[2])
    for task in range(K):
        rgb, reward, start = inputs()
        alone = policy(rgb, reward, policy.initial_state(B, task=task), start)
        torch.testing.assert_close(mixed.logits[:, task == TASKS], alone.logits[:, task == TASKS])
        assert_state(mixed.state, alone.state, task == TASKS)
        if list(policy.core.parameters()):  # the feed-forward network's core has nothing that could differ
            assert not torch.allclose(mixed.logits[:, task != TASKS], alone.logits[:, task != TASKS])


@pytest.mark.parametrize("core", list(CORES))
def test_steps_and_sequences_give_the_same_numbers(core: str) -> None:
    policy = made(core)
    rgb, reward, start = inputs()
    whole = policy(rgb, reward, policy.initial_state(B, task=TASKS), start)
    state = policy.initial_state(B, task=TASKS)
    for t in range(T):
        step = policy(rgb[t : t + 1], reward[t : t + 1], state, start[t : t + 1])
        torch.testing.assert_close(step.logits[0], whole.logits[t])
        state = step.state
    assert_state(state, whole.state, torch.arange(B))


def test_only_the_core_of_the_task_learns() -> None:
    policy = made("srwm")
    rgb, reward, start = inputs()
    policy(rgb, reward, policy.initial_state(B, task=1), start).logits.square().sum().backward()
    assert isinstance(policy.core, TaskCores)
    for task, core in enumerate(policy.core.cores):
        assert all((parameter.grad is not None) == (task == 1) for parameter in core.parameters())
    assert policy.gradient_blocks()["layer0/q"].any()


def test_readings_are_those_of_each_streams_own_core() -> None:
    policy = made("srwm")
    rgb, reward, start = inputs()
    output, mixed = policy.examine(rgb, reward, policy.initial_state(B, task=TASKS), start)
    for task in range(K):
        alone, readings = policy.examine(rgb, reward, policy.initial_state(B, task=task), start)
        torch.testing.assert_close(output.logits[:, task == TASKS], alone.logits[:, task == TASKS])
        for one, other in zip(mixed, readings, strict=True):
            assert one.tag == other.tag
            torch.testing.assert_close(one.values[task == TASKS], other.values[task == TASKS])
            if one.heads is not None and other.heads is not None:
                torch.testing.assert_close(one.heads[task == TASKS], other.heads[task == TASKS])


def test_factors_of_learning_rates_reach_each_core() -> None:
    tasks = TaskConfig(2, "told", cores="per-task")
    core = small_core("srwm", w0_learning_rate=(3.0,))
    policy = Policy(PolicyConfig(core, tasks=tasks), (64, 64, 3), 5)
    names = dict(policy.named_parameters())
    factors = policy.step_factors()
    assert len(factors) == 2 * len({name.partition(".w0")[0][-1] for name in factors})
    assert all(name in names and (factor == 3.0).all() for name, factor in factors.items())


def test_all_cores_stop_writing() -> None:
    policy = made("srwm")
    policy.core.set_writing(False)
    rgb, reward, start = inputs()
    state = policy(rgb, reward, policy.initial_state(B, task=TASKS), start).state
    assert all(not tensor.any() for tensor in policy.core.written_weights(state).values())
