"""Policies that are told their task: heads and units of their own, and nothing for those that are not told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.config import problems
from policies import CORES, TASK, ImpalaEncoderConfig, Policy, PolicyConfig, TaskConfig
from policies.tasks import Blocks, Gate, draw_masks
from small_cores import small_core

T, B, K = 4, 6, 3


def made(core: str = "srwm", **tasks: Any) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(
        small_core(core), ImpalaEncoderConfig(hidden=16, channels=(4,)), tasks=TaskConfig(K, **tasks)
    )
    return Policy(config, (8, 8, 3), 5)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(256, (T, B, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return rgb, torch.zeros(T, B, 1), torch.rand(T, B, generator=generator) < 0.2


def said(policy: Policy, task: Any) -> tuple[Tensor, Tensor]:
    rgb, reward, start = inputs()
    output = policy(rgb, reward, policy.initial_state(B, task=task), start)
    return output.logits, output.value


@pytest.mark.parametrize("core", list(CORES))
def test_each_stream_gets_the_head_of_its_task(core: str) -> None:
    policy = made(core, id="told", heads="per-task")
    tasks = torch.tensor([0, 1, 2, 2, 1, 0])
    logits, values = said(policy, tasks)
    for task in range(K):
        alone = said(policy, task)
        columns = tasks == task
        torch.testing.assert_close(logits[:, columns], alone[0][:, columns])
        torch.testing.assert_close(values[:, columns], alone[1][:, columns])
    assert not torch.allclose(said(policy, 0)[0], said(policy, 1)[0])
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert policy.actor.weight.grad is not None  # type: ignore[union-attr]


def test_only_the_head_of_the_task_learns() -> None:
    policy = made(id="told", heads="per-task")
    (said(policy, 1)[0].square().sum() + said(policy, 1)[1].square().sum()).backward()  # type: ignore[no-untyped-call]
    for head in (policy.actor, policy.critic):
        assert head.weight.grad[1].any()  # type: ignore[index, union-attr]
        assert not head.weight.grad[[0, 2]].any()  # type: ignore[index, union-attr]


@pytest.mark.parametrize("core", list(CORES))
def test_a_policy_that_is_not_told_is_as_it_was(core: str) -> None:
    """Its state has no task, its weights are those of a policy that knows of no tasks."""
    hidden = made(core)
    plain = Policy(replace(hidden.config, tasks=TaskConfig()), (8, 8, 3), 5)
    assert plain.state_dict().keys() == hidden.state_dict().keys()
    assert TASK not in hidden.initial_state(B)
    assert torch.equal(said(hidden, 0)[0], said(hidden, torch.arange(B) % K)[0])


def test_a_told_policy_must_be_told() -> None:
    policy = made(id="told")
    rgb, reward, start = inputs()
    state = policy.initial_state(B)
    del state[TASK]
    with pytest.raises(ValueError, match="its state must say which"):
        policy(rgb, reward, state, start)


@pytest.mark.parametrize("core", list(CORES))
def test_the_task_goes_through_steps_and_restarts(core: str) -> None:
    policy = made(core, id="told", heads="per-task", gated_share=0.5)
    tasks = torch.tensor([0, 1, 2, 2, 1, 0])
    rgb, reward, start = inputs()
    whole = policy(rgb, reward, policy.initial_state(B, task=tasks), start)
    state, logits = policy.initial_state(B, task=tasks), []
    for t in range(T):
        output = policy(rgb[t : t + 1], reward[t : t + 1], state, start[t : t + 1])
        state = output.state
        logits.append(output.logits[0])
    torch.testing.assert_close(torch.stack(logits), whole.logits, rtol=1e-4, atol=1e-5)
    assert torch.equal(state[TASK], tasks)
    assert torch.equal(policy.restarted(state)[TASK], tasks)


def test_blocks_compete_once_their_task_has_been_seen() -> None:
    policy = made(heads="blocks")
    assert isinstance(policy.actor, Blocks)
    rgb, reward, start = inputs()
    for seen in range(1, K + 1):
        output = policy(rgb, reward, policy.initial_state(B), start)
        units = policy.actor.linear.all(output.hidden)[:, :, :seen].flatten(2).softmax(-1)
        wanted = units.unflatten(-1, (seen, 5)).sum(-2)  # an action is what it is, in whichever block
        torch.testing.assert_close(output.logits.softmax(-1), wanted)
        policy.see_task(min(seen, K - 1))
    assert policy.state_dict()["actor.seen"].tolist() == [True] * K


def test_blocks_that_are_closed_do_not_learn() -> None:
    policy = made(heads="blocks")
    said(policy, 0)[0].log_softmax(-1)[..., 0].sum().backward()  # type: ignore[no-untyped-call]
    gradient = policy.actor.weight.grad  # type: ignore[union-attr]
    assert gradient[0].any()  # type: ignore[index, union-attr]
    assert not gradient[1:].any()  # type: ignore[index, union-attr]
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


# Gates


@given(size=st.integers(1, 300), tasks=st.integers(1, 8), share=st.floats(0, 0.99), layer=st.integers(0, 5))
def test_as_many_units_speak_in_each_task(size: int, tasks: int, share: float, layer: int) -> None:
    config = TaskConfig(tasks, "told", gated_share=share, gate_seed=3)
    masks = draw_masks(config, size, layer)
    assert masks.sum(1).tolist() == [round((1 - share) * size)] * tasks
    assert np.array_equal(masks, draw_masks(config, size, layer))


@given(size=st.integers(8, 300), tasks=st.integers(1, 8))
def test_units_apart_speak_in_one_task(size: int, tasks: int) -> None:
    masks = draw_masks(TaskConfig(tasks, "told", gated_share=1 - 1 / tasks, gated_apart=True), size, 0)
    assert masks.sum(0).max() <= 1
    assert masks.sum(1).tolist() == [size // tasks] * tasks


def test_masks_differ_between_tasks_layers_and_seeds() -> None:
    config = TaskConfig(2, "told", gated_share=0.5)
    found = [
        draw_masks(config, 50, 0),
        draw_masks(config, 50, 1),
        draw_masks(replace(config, gate_seed=1), 50, 0),
    ]
    rows = {mask.tobytes() for masks in found for mask in masks}
    assert len(rows) == 6


@pytest.mark.parametrize("core", list(CORES))
def test_silent_units_neither_speak_nor_learn(core: str) -> None:
    policy = made(core, id="told", heads="per-task", gated_share=0.5)
    masks = {name: gate.masks for name, gate in policy.named_modules() if isinstance(gate, Gate)}
    assert "gate" in masks
    assert all(mask is not None for mask in masks.values())
    (said(policy, 1)[0].square().sum()).backward()  # type: ignore[no-untyped-call]
    silent = ~masks["gate"][1]  # type: ignore[index]
    weight = policy.encoder.linear.weight
    assert weight.grad is not None
    assert not weight.grad[silent].any()
    assert weight.grad[~silent].any()
    for name, mask in masks.items():
        if "blocks" in name:
            block: Any = policy.get_submodule(name.removesuffix(".gate"))
            assert not block.linear1.weight.grad[~mask[1]].any()  # type: ignore[index]
            assert not block.linear2.weight.grad[:, ~mask[1]].any()  # type: ignore[index]
            assert block.linear2.weight.grad[:, mask[1]].any()  # type: ignore[index]


def test_masks_are_part_of_the_weights() -> None:
    one = made(id="told", gated_share=0.5)
    stored = one.state_dict()
    other = Policy(replace(one.config, tasks=replace(one.config.tasks, gate_seed=9)), (8, 8, 3), 5)
    assert not torch.equal(other.state_dict()["gate.masks"], stored["gate.masks"])
    other.load_state_dict(stored)
    assert torch.equal(said(one, 2)[0], said(other, 2)[0])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"heads": "per-task"}, "tasks.heads per-task are chosen by the task: use tasks.id told"),
        ({"cores": "per-task"}, "tasks.cores per-task are chosen by the task: use tasks.id told"),
        ({"gated_share": 0.5}, "tasks.gated_share chooses units by the task: use tasks.id told"),
        (
            {"id": "told", "gated_share": 0.5, "gated_apart": True},
            "tasks.gated_apart: 3 tasks cannot have 50% of all units each: use a gated_share of 0.667 or more",
        ),
        ({"heads": "many"}, "unknown tasks.heads 'many': (known: shared, per-task, blocks)"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], problem: str) -> None:
    assert problems(PolicyConfig(tasks=TaskConfig(3, **settings))) == [problem]
