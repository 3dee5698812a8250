"""Counting episodes, with an environment and an actor whose right behaviour is known."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import ActionStep, Actor
from envs.native import NO_OP
from evaluation.rollouts import episode_quotas, play_episodes


class Clock(DummyVecEnv):
    """Episodes of slot i last i + 1 steps; observations name slot, episode and step."""

    def __init__(self, slots: int) -> None:
        self.num_envs = slots
        self.observation_space = spaces.Discrete(1)
        self.steps = np.zeros(slots, dtype=np.int64)
        self.ended = np.zeros(slots, dtype=np.int64)
        self.received: list[NDArray[np.int64]] = []

    def reset(self) -> Any:
        return self._observe()

    def _observe(self) -> dict[str, NDArray[Any]]:
        return {"slot": np.arange(self.num_envs), "step": self.steps.copy(), "episode": self.ended.copy()}

    def step(self, actions: NDArray[np.int64]) -> Any:
        self.received.append(actions.copy())
        self.steps += 1
        done = self.steps > np.arange(self.num_envs)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for slot in np.flatnonzero(done):
            infos[slot] = {
                "episode": {"r": 10.0 * slot + self.ended[slot], "l": slot + 1},
                "prev_level_seed": int(slot),
                "prev_level_complete": bool(slot % 2),
            }
        self.ended[done] += 1
        self.steps[done] = 0
        return self._observe(), np.zeros(self.num_envs), done, infos


class Witness:
    """An actor that checks that each row of its state stays with its slot and counts that slot's steps."""

    device = torch.device("cpu")

    def __init__(self, slots: int) -> None:
        self.state = {"slot": torch.arange(slots), "calls": torch.zeros(slots, dtype=torch.int64)}
        self.rows = 0

    def step(self, observation: dict[str, Any], start: NDArray[np.bool_], deterministic: bool) -> ActionStep:
        slots, steps, episodes = (observation[key] for key in ("slot", "step", "episode"))
        assert self.state["slot"].tolist() == slots.tolist()
        assert self.state["calls"].tolist() == (episodes * (slots + 1) + steps).tolist()
        assert start.tolist() == (steps == 0).tolist()
        self.state = {**self.state, "calls": self.state["calls"] + 1}
        self.rows += len(slots)
        actions = torch.full((len(slots),), 9)
        return ActionStep(actions, *[torch.zeros(len(slots))] * 3)


@pytest.mark.parametrize("quotas", [[2, 2, 2, 2], [0, 3, 1, 2], [1, 1, 0, 0], [5, 1, 1, 1]])
def test_each_slot_plays_its_share_and_no_step_is_thought_about_in_vain(quotas: list[int]) -> None:
    env, witness = Clock(4), Witness(4)
    episodes = play_episodes(env, cast(Actor, witness), quotas, greedy=True)
    # What ends when: the k-th episode of slot i, with its i + 1 steps, after k (i + 1) steps.
    expected = sorted(((k + 1) * (slot + 1), slot, k) for slot in range(4) for k in range(quotas[slot]))
    assert [e.score for e in episodes] == [10.0 * slot + k for _, slot, k in expected]
    assert [e.length for e in episodes] == [slot + 1 for _, slot, _ in expected]
    assert [e.level for e in episodes] == [slot for _, slot, _ in expected]
    assert [e.complete for e in episodes] == [bool(slot % 2) for _, slot, _ in expected]
    lengths = [quota * (slot + 1) for slot, quota in enumerate(quotas)]
    assert witness.rows == sum(lengths)
    assert len(env.received) == max(lengths)
    for t, actions in enumerate(env.received):
        assert actions.tolist() == [9 if t < length else NO_OP for length in lengths]


def test_one_call_for_each_episode() -> None:
    calls: list[None] = []
    play_episodes(Clock(3), cast(Actor, Witness(3)), [2, 1, 1], True, lambda: calls.append(None))
    assert len(calls) == 4


def test_quotas_must_fit_the_slots() -> None:
    with pytest.raises(ValueError, match="one for each slot"):
        play_episodes(Clock(3), cast(Actor, Witness(3)), [1, 1], True)


def test_shares_are_equal_or_differ_by_one() -> None:
    assert episode_quotas(200, 100).tolist() == [2] * 100
    assert sorted(episode_quotas(7, 3).tolist()) == [2, 2, 3]
    for episodes, slots in [(1, 1), (5, 4), (99, 10)]:
        assert episode_quotas(episodes, slots).sum() == episodes
