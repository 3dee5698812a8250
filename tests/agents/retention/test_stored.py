"""What methods have stored, damaged or of other networks: refused in a line when it is loaded, by every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch

import agents
from agents import IMPALA, CheckpointError, read_checkpoint, write_checkpoint
from agents.content import fitting
from agents.learner import Learner
from agents.retention import RETENTIONS, RetentionConfig
from agents.rollout import Batch
from policies import PolicyConfig, TaskConfig

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]

CASES: dict[str, dict[str, Any]] = {
    **{name: {} for name in RETENTIONS if name not in ("none", "xdg")},
    "wpl, schur": {"wpl_form": "schur", "wpl_unrolls": 3},
    "generative, kept": {"generative_level": "features-kept"},
}
Place = tuple[str, ...]


def second_task(case: str, make: MakeLearner, random_batch: MakeBatch, core: str = "lstm") -> Learner:
    """A learner that has left one task and is in the middle of the next."""
    made = make(case.split(",")[0], core, **CASES[case])
    rollout = random_batch(made.policy, 6, 4)
    made.learn(rollout, 0)
    made.retention.end_task(0, lambda count: iter([rollout]))
    made.retention.begin_task(1)
    made.learn(rollout, 0)
    return made


def leaves(table: dict[str, Any], above: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in nested dictionaries that is none itself."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def changed(state: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy in which another value stands at this place; None takes the whole entry out."""
    state = deepcopy(state)
    *way, last = place
    table = state
    for name in way:
        table = table[name]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return state


def longer(tensor: torch.Tensor) -> torch.Tensor:
    """One element more, and no shape."""
    return torch.cat([tensor.flatten(), torch.zeros(1, dtype=tensor.dtype)])


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_another_form_is_taken_up(
    case: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    """Every entry of what a method keeps: another shape, something that is no tensor, not there at all."""
    made = second_task(case, learner, random_batch)
    state = made.retention.state()
    places = list(leaves(state))
    assert any(isinstance(value, torch.Tensor) for _, value in places)
    for place, value in places:
        if value is None:  # what the method has not begun to keep
            continue
        wrong = [None, "text"]
        if isinstance(value, torch.Tensor):
            wrong.append(longer(value))
        for other in wrong:
            with pytest.raises(CheckpointError) as caught, fitting("a.ckpt"):
                made.retention.load_state(changed(state, place, other))
            assert "\n" not in str(caught.value), place
    made.retention.load_state(state)


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_another_network_is_taken_up(
    case: str, learner: MakeLearner, random_batch: MakeBatch
) -> None:
    """Not even by a method that holds weights alone which both have: they are called by their names."""
    foreign = second_task(case, learner, random_batch, "srwm").retention.state()
    if case.startswith(
        "wpl"
    ):  # only the shared weights are in it: it may be handed from one model to the next
        learner("wpl", "lstm").retention.load_state(foreign)
        return
    with pytest.raises(CheckpointError, match=r"of another|does not fit"), fitting("a.ckpt"):
        learner(case.split(",")[0], "lstm", **CASES[case]).retention.load_state(foreign)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("teacher", "actor.bias"), torch.zeros(4), "the teacher that a method of continual learning"),
        (("teacher_state", "memory"), torch.zeros(4, 3), "the teacher's state that a method"),
        (("left",), [0, "first"], "tasks that were left"),
        (("task",), -1, "its task is -1, not a number from 0"),
    ],
)
def test_a_damaged_teacher_is_named(
    place: Place,
    value: Any,
    message: str,
    tiny: Callable[..., PolicyConfig],
    toy: Callable[..., Any],
    tmp_path: Any,
) -> None:
    policy = tiny("lstm", tasks=TaskConfig(2, "told", "per-task"))
    agent = IMPALA(policy, toy(4), retention="lwf", seed=0, rollout_steps=5).learn(20)
    agent.change_task(toy(4), 1)
    agent.learn(20, reset_num_timesteps=False)
    agent.save(tmp_path / "whole")
    content = read_checkpoint(tmp_path / "whole.ckpt")
    content["learner"]["retention"] = changed(content["learner"]["retention"], place, value)
    path = write_checkpoint(tmp_path / "damaged.ckpt", content)
    with pytest.raises(CheckpointError, match=rf"damaged.ckpt does not fit: .*{message}"):
        agents.load(path, toy(4))


def test_a_teacher_follows_as_many_environments_as_there_are(
    tiny: Callable[..., PolicyConfig], toy: Callable[..., Any], tmp_path: Any
) -> None:
    """Where a checkpoint goes on in more environments, in new episodes, its teacher begins anew in each."""
    agent = IMPALA(
        tiny("lstm"), toy(4), retention="lwf", retain=RetentionConfig(), seed=0, rollout_steps=5
    ).learn(20)
    agent.change_task(toy(4), 1)
    agent.learn(20, reset_num_timesteps=False)
    agent.save(tmp_path / "four")
    other = agents.load(tmp_path / "four", toy(6))
    other.learn(60, reset_num_timesteps=False)
    assert {len(tensor) for tensor in other.retention.state()["teacher_state"].values()} == {6}
