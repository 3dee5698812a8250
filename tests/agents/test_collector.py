"""The plumbing, proved with a policy that counts its calls and an environment that shows its own clock.

The environment's whole course is known beforehand, so each number in each batch can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from torch import Tensor, nn

from agents.acting import Actor
from agents.collector import Collector, Step, Stream, groups_of
from agents.rewards import RawReward
from agents.rollout import Batch, RolloutStore
from envs.grouped import GroupedVecEnv
from policies import PolicyOutput, State

NUM_ENVS, ACTIONS, HORIZON = 5, 7, 200
STEPS_OF_ROLLOUT = 6


def reward_of(slot: Any, episode: Any, step: Any, action: Any) -> Any:
    """Different for all that may be mixed up."""
    return 1000.0 * slot + 50.0 * episode + step + 0.125 * action


def action_of(slot: Any, episode: Any, step: Any) -> Any:
    return (slot + 2 * episode + 3 * step) % ACTIONS


class Course:
    """Episode and step of each slot at each time, (HORIZON, NUM_ENVS), with ends at random."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.slot = np.broadcast_to(np.arange(NUM_ENVS), (HORIZON, NUM_ENVS))
        self.episode, self.step = np.zeros((2, HORIZON, NUM_ENVS), dtype=np.int64)
        self.ends = rng.random((HORIZON, NUM_ENVS)) < 0.2
        for t in range(1, HORIZON):
            self.episode[t] = self.episode[t - 1] + self.ends[t - 1]
            self.step[t] = np.where(self.ends[t - 1], 0, self.step[t - 1] + 1)
        self.action = action_of(self.slot, self.episode, self.step)
        self.reward = reward_of(self.slot, self.episode, self.step, self.action)

    def frame(self, t: int, slot: int) -> NDArray[np.uint8]:
        pixel = np.array([slot, self.episode[t, slot], self.step[t, slot]], dtype=np.uint8)
        return np.broadcast_to(pixel, (2, 2, 3)).copy()


class CountingEnv(gymnasium.Env[dict[str, NDArray[Any]], np.int64]):
    """One slot of a course: shows its number, episode and step in its frames.

    Rewards name all of them and the action that was received.
    """

    def __init__(self, course: Course, slot: int) -> None:
        self.course, self.slot = course, slot
        image = gymnasium.spaces.Box(0, 255, (2, 2, 3), np.uint8)
        reward = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(rgb=image, reward=reward)
        self.action_space = gymnasium.spaces.Discrete(ACTIONS)
        self.t, self.last_reward = 0, 0.0

    def observe(self) -> dict[str, NDArray[Any]]:
        reward = np.array([self.last_reward / 1e4], np.float32)
        return {"rgb": self.course.frame(self.t, self.slot), "reward": reward}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        course, t, slot = self.course, self.t, self.slot
        self.last_reward = float(reward_of(slot, course.episode[t, slot], course.step[t, slot], action))
        self.t += 1
        return self.observe(), self.last_reward, bool(course.ends[t, slot]), False, {"t": t, "slot": slot}


class CountingPolicy(nn.Module):
    """Adds one to its state at each call, clears it at episode starts and shows it as its value.

    Each stream also remembers which slot it has seen.
    """

    def initial_state(self, batch_size: int, device: Any = None) -> State:
        return {"count": torch.zeros(batch_size), "slot": torch.full((batch_size,), -1.0)}

    def forward(self, rgb: Tensor, reward: Tensor, state: State, episode_start: Tensor) -> PolicyOutput:
        slot, episode, step = rgb[0, :, 0, 0].long().unbind(-1)
        count = torch.where(episode_start[0], 0.0, state["count"]) + 1.0
        logits = 1e3 * nn.functional.one_hot(action_of(slot, episode, step), ACTIONS).float()
        logits[:, 0] += reward[0, :, 0]  # too little to change the action
        return PolicyOutput(logits.unsqueeze(0), count.unsqueeze(0), {"count": count, "slot": slot.float()})


class DoubledReward(RawReward):
    """Shows that the learner's rewards went through the transform, together with the right ends."""

    def __init__(self) -> None:
        self.dones: list[NDArray[np.bool_]] = []

    def __call__(
        self, rewards: NDArray[np.float32], dones: NDArray[np.bool_], games: Sequence[str]
    ) -> NDArray[np.float32]:
        self.dones.append(dones.copy())
        return 2.0 * rewards


def make_collector(
    course: Course, groups: Sequence[int] = (NUM_ENVS,), unroll_steps: int | None = None
) -> tuple[Collector, Stream, RolloutStore]:
    """`groups` are the sizes of groups of environments that are stepped by turns."""

    def make_actor(num_envs: int) -> Actor:
        return Actor(CountingPolicy(), num_envs, torch.device("cpu"), torch.Generator())  # type: ignore[arg-type]

    slots = iter(range(NUM_ENVS))
    parts = [
        DummyVecEnv([partial(CountingEnv, course, slot) for slot in islice(slots, size)]) for size in groups
    ]
    env = parts[0] if len(parts) == 1 else GroupedVecEnv(parts)
    store = RolloutStore(STEPS_OF_ROLLOUT, NUM_ENVS, (2, 2, 3), ACTIONS, torch.device("cpu"), unroll_steps)
    collector = Collector(env, make_actor, DoubledReward(), torch.device("cpu"))
    observation = env.reset()
    assert isinstance(observation, dict)
    return collector, Stream(observation, np.ones(NUM_ENVS, bool)), store


def assert_equal(got: Tensor, expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(got.numpy(), expected)


def check_batch(batch: Batch, course: Course, first: int, steps: int = STEPS_OF_ROLLOUT) -> None:
    """`batch` is the part of `course` that begins at time `first`."""
    taken = slice(first, first + steps)
    shown = slice(first, first + steps + 1)
    pixels = np.stack([course.slot[shown], course.episode[shown], course.step[shown]], axis=-1)
    assert_equal(batch.rgb, np.broadcast_to(pixels[:, :, None, None], batch.rgb.shape))
    assert_equal(batch.episode_start, course.step[shown] == 0)
    assert_equal(batch.actions, course.action[taken])
    assert batch.logits is not None
    assert_equal(batch.logits.argmax(-1), course.action[taken])  # of the same step, not of the one before
    assert_equal(batch.rewards, 2.0 * course.reward[taken])
    assert_equal(batch.dones, course.ends[taken])
    assert_equal(batch.dones, course.step[first + 1 : first + steps + 1] == 0)
    assert_equal(batch.values, course.step[taken] + 1)
    assert_equal(batch.log_probs, np.zeros((steps, NUM_ENVS)))
    rewards_before = np.concatenate([np.zeros((1, NUM_ENVS)), course.reward])[shown]
    assert_equal(batch.reward_input[..., 0], (rewards_before / 1e4).astype(np.float32))
    # A state is that of before an observation: what was counted up to the step before it.
    counts = np.concatenate([np.zeros((1, NUM_ENVS)), course.step + 1])
    assert_equal(batch.initial_state["count"], counts[first])
    assert_equal(batch.final_state["count"], counts[first + steps])
    assert_equal(batch.initial_state["slot"], np.arange(NUM_ENVS) if first else np.full(NUM_ENVS, -1))
    assert_equal(batch.final_state["slot"], np.arange(NUM_ENVS))


@pytest.mark.parametrize("groups", [(5,), (3, 2), (1, 1, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_every_batch_is_its_part_of_the_course(seed: int, groups: Sequence[int]) -> None:
    course = Course(seed)
    collector, stream, store = make_collector(course, groups)
    for rollout in range(12):
        stream, complete = collector.collect(stream, store, lambda infos: True)
        assert complete
        check_batch(store.batch, course, first=rollout * STEPS_OF_ROLLOUT)
    borders = course.ends[STEPS_OF_ROLLOUT - 1 : 12 * STEPS_OF_ROLLOUT : STEPS_OF_ROLLOUT]
    assert borders.any()
    assert not borders.all()
    assert_equal(torch.tensor(np.array(collector.transform.dones)), course.ends[: 12 * STEPS_OF_ROLLOUT])  # type: ignore[attr-defined]


@pytest.mark.parametrize("groups", [(5,), (3, 2)])
@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_sequences_are_their_parts_of_the_course(length: int, groups: Sequence[int]) -> None:
    course = Course(1)
    collector, stream, store = make_collector(course, groups, length)
    for first in range(0, 4 * STEPS_OF_ROLLOUT, STEPS_OF_ROLLOUT):
        stream, _ = collector.collect(stream, store, lambda infos: True)
        cut = store.batch.in_unrolls(STEPS_OF_ROLLOUT // length)
        assert cut.actions.shape == (length, NUM_ENVS * STEPS_OF_ROLLOUT // length)
        for number in range(STEPS_OF_ROLLOUT // length):
            columns = torch.arange(number * NUM_ENVS, (number + 1) * NUM_ENVS)
            check_batch(cut.select(columns), course, first + number * length, length)
        check_batch(store.batch, course, first)


def test_a_selection_keeps_each_environment_together() -> None:
    course = Course(3)
    collector, stream, store = make_collector(course)
    for _ in range(2):
        stream, _ = collector.collect(stream, store, lambda infos: True)
    order = [3, 0, 4]
    for name in ("slot", "episode", "step", "ends", "action", "reward"):
        setattr(course, name, getattr(course, name)[:, order])
    part = store.batch.select(torch.tensor(order))
    assert_equal(part.rgb[:, :, 0, 0, 0], course.slot[6:13])
    assert_equal(part.rgb[:, :, 0, 0, 2], course.step[6:13])
    assert_equal(part.actions, course.action[6:12])
    assert_equal(part.rewards, 2.0 * course.reward[6:12])
    assert_equal(part.values, course.step[6:12] + 1)
    assert_equal(part.episode_start, course.step[6:13] == 0)
    assert_equal(part.dones, course.ends[6:12])
    assert_equal(part.reward_input[1:, :, 0], (course.reward[6:12] / 1e4).astype(np.float32))
    assert_equal(part.initial_state["slot"], np.array(order))
    assert_equal(part.final_state["count"], course.step[11] + 1)
    assert part.log_probs.shape == (6, 3)


@pytest.mark.parametrize("groups", [(5,), (2, 3)])
def test_callbacks_follow_each_step_and_may_stop(groups: Sequence[int]) -> None:
    course = Course(4)
    collector, stream, store = make_collector(course, groups)
    seen: list[int] = []

    def on_step(step: Step) -> bool:
        assert [info["slot"] for info in step.infos] == list(range(NUM_ENVS))
        t = len(seen)
        np.testing.assert_array_equal(step.actions, course.action[t])
        np.testing.assert_array_equal(step.dones, course.ends[t])
        np.testing.assert_array_equal(step.rewards, course.reward[t])  # as the games give them
        np.testing.assert_array_equal(step.observation["rgb"][:, 0, 0, 2], course.step[t + 1])
        seen.append(step.infos[0]["t"])
        return len(seen) < 9

    first, complete = collector.collect(stream, store, on_step)
    assert complete
    assert seen == [0, 1, 2, 3, 4, 5]
    last, complete = collector.collect(first, store, on_step)
    assert not complete
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    # A group that is a step ahead stays there, with its observations, episode starts and states.
    times = np.array([9, 9, 9, 9, 9] if len(groups) == 1 else [10, 10, 9, 9, 9])
    at = (times, np.arange(NUM_ENVS))
    np.testing.assert_array_equal(last.observation["rgb"][:, 0, 0, 2], course.step[at])
    np.testing.assert_array_equal(last.episode_start, course.step[at] == 0)
    np.testing.assert_array_equal(collector.core_state["count"], course.step[times - 1, at[1]] + 1)


def test_a_group_steps_while_the_next_one_is_asked() -> None:
    collector, stream, store = make_collector(Course(4), (2, 3))
    events: list[tuple[str, int]] = []

    def watch(thing: Any, name: str, number: int) -> None:
        call = getattr(thing, name)

        def watched(*arguments: Any) -> Any:
            events.append((name, number))
            return call(*arguments)

        setattr(thing, name, watched)

    for number, group in enumerate(collector._groups):
        watch(group.actor, "step", number)
        watch(group.env, "step_async", number)
        watch(group.env, "step_wait", number)
    collector.collect(stream, store, lambda infos: True)
    turn = [
        ("step", 0),
        ("step_async", 0),
        ("step_wait", 1),
        ("step", 1),
        ("step_async", 1),
        ("step_wait", 0),
    ]
    assert events[:3] == [("step", 0), ("step_async", 0), ("step", 1)]
    assert events[4:28] == [*turn[5:], *turn[:5]] * 4


def test_a_wrapper_is_not_passed_by() -> None:
    parts = [DummyVecEnv([partial(CountingEnv, Course(0), slot)]) for slot in range(2)]
    env = GroupedVecEnv(parts)
    assert list(groups_of(env)) == parts
    wrapped = VecMonitor(env)
    assert list(groups_of(wrapped)) == [wrapped]
    assert list(groups_of(parts[0])) == [parts[0]]


def test_the_state_of_all_groups_can_be_set() -> None:
    collector, _, _ = make_collector(Course(4), (2, 3))
    state = {"count": torch.arange(5.0), "slot": torch.arange(5.0) * 2}
    collector.core_state = state
    assert collector._groups[1].actor.state["count"].tolist() == [2.0, 3.0, 4.0]
    assert {name: tensor.tolist() for name, tensor in collector.core_state.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }


def test_the_given_stream_is_not_modified() -> None:
    collector, stream, store = make_collector(Course(5))
    collector.collect(stream, store, lambda infos: True)
    np.testing.assert_array_equal(stream.observation["rgb"][:, 0, 0, 2], np.zeros(NUM_ENVS))
    assert stream.episode_start.all()


def test_stages_are_timed() -> None:
    collector, stream, store = make_collector(Course(6))
    collector.collect(stream, store, lambda infos: True)
    assert collector.times.acting > 0.0
    assert collector.times.environment > 0.0
    collector.times.clear()
    assert collector.times.acting == collector.times.environment == collector.times.learning == 0.0


def test_the_reference_course_is_what_a_plain_loop_makes() -> None:
    """The judge is judged: one slot at a time, written as a game would be."""
    course = Course(0)
    for slot in range(NUM_ENVS):
        episode = step = 0
        for t in range(HORIZON):
            assert (course.episode[t, slot], course.step[t, slot]) == (episode, step)
            episode, step = (episode + 1, 0) if course.ends[t, slot] else (episode, step + 1)
