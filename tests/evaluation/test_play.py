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
from evaluation.rollouts import Match, episode_quotas, play_matches, sampler


class Clock(DummyVecEnv):
    """Episodes of slot i last i + 1 steps; observations name environment, slot, episode and step."""

    def __init__(self, slots: int, name: int = 0) -> None:
        self.num_envs = slots
        self.name = name
        self.observation_space = spaces.Discrete(1)
        self.steps = np.zeros(slots, dtype=np.int64)
        self.ended = np.zeros(slots, dtype=np.int64)
        self.received: list[NDArray[np.int64]] = []

    def reset(self) -> Any:
        return self._observe()

    def _observe(self) -> dict[str, NDArray[Any]]:
        slots = np.arange(self.num_envs)
        return {
            "name": 100 * self.name + slots,
            "time": self.ended * (slots + 1) + self.steps,
            "step": self.steps.copy(),
        }

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self.received.append(actions.copy())

    def step_wait(self) -> Any:
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
    """An actor that checks that each row of its state stays with its slot and counts that slot's steps.

    The most likely action of a row tells its slot.
    """

    device = torch.device("cpu")

    def __init__(self, *names: int) -> None:
        self.state = {"name": torch.tensor(names), "calls": torch.zeros(len(names), dtype=torch.int64)}
        self.rows = 0

    def step(self, observation: dict[str, Any], start: NDArray[np.bool_], deterministic: bool) -> ActionStep:
        names = observation["name"]
        assert self.state["name"].tolist() == names.tolist()
        assert self.state["calls"].tolist() == observation["time"].tolist()
        assert start.tolist() == (observation["step"] == 0).tolist()
        self.state = {**self.state, "calls": self.state["calls"] + 1}
        self.rows += len(names)
        logits = torch.nn.functional.one_hot(torch.as_tensor(names % 100 + 6), 15).float()
        return ActionStep(*[torch.zeros(len(names))] * 3, logits)


def ends(quotas: list[int]) -> list[tuple[int, int, int]]:
    """(when, slot, number) of all episodes: those of slot i last i + 1 steps."""
    return sorted(((k + 1) * (slot + 1), slot, k) for slot in range(len(quotas)) for k in range(quotas[slot]))


@pytest.mark.parametrize("quotas", [[2, 2, 2, 2], [0, 3, 1, 2], [1, 1, 0, 0], [5, 1, 1, 1]])
def test_each_slot_plays_its_share_and_no_step_is_thought_about_in_vain(quotas: list[int]) -> None:
    env, witness = Clock(4), Witness(0, 1, 2, 3)
    match = Match(env, quotas)
    play_matches([match], cast(Actor, witness))
    expected = ends(quotas)
    assert [e.score for e in match.episodes] == [10.0 * slot + k for _, slot, k in expected]
    assert [e.length for e in match.episodes] == [slot + 1 for _, slot, _ in expected]
    assert [e.level for e in match.episodes] == [slot for _, slot, _ in expected]
    assert [e.complete for e in match.episodes] == [bool(slot % 2) for _, slot, _ in expected]
    lengths = [quota * (slot + 1) for slot, quota in enumerate(quotas)]
    assert witness.rows == sum(lengths)
    assert len(env.received) == max(lengths)
    for t, actions in enumerate(env.received):
        assert actions.tolist() == [slot + 6 if t < length else NO_OP for slot, length in enumerate(lengths)]


def test_matches_are_played_side_by_side() -> None:
    quotas = [[1, 2, 3], [4, 0], [0], [1]]
    envs = [Clock(len(shares), name) for name, shares in enumerate(quotas)]
    witness = Witness(0, 1, 2, 100, 101, 200, 300)
    matches = [Match(env, shares) for env, shares in zip(envs, quotas, strict=True)]
    play_matches(matches, cast(Actor, witness))
    for match, shares in zip(matches, quotas, strict=True):
        assert [(e.level, e.score) for e in match.episodes] == [
            (slot, 10 * slot + k) for _, slot, k in ends(shares)
        ]
    assert witness.rows == (1 + 2 * 2 + 3 * 3) + 4 + 0 + 1
    assert [len(env.received) for env in envs] == [9, 4, 0, 1]  # an environment that has ended is left alone


def test_actions_can_be_drawn() -> None:
    def received(seed: int) -> list[list[int]]:
        env = Clock(8)
        play_matches([Match(env, [5] * 8, sampler(seed, Witness.device))], cast(Actor, Witness(*range(8))))
        return [actions.tolist() for actions in env.received]

    assert received(1) == received(1) != received(2)
    assert len({action for actions in received(1) for action in actions}) > 8


def test_one_call_for_each_episode() -> None:
    calls: list[None] = []
    match = Match(Clock(3), [2, 1, 1], on_episode=lambda: calls.append(None))
    play_matches([match], cast(Actor, Witness(0, 1, 2)))
    assert len(calls) == 4


def test_quotas_must_fit_the_slots() -> None:
    with pytest.raises(ValueError, match="2 quotas for 3 slots"):
        Match(Clock(3), [1, 1])


def test_shares_are_equal_or_differ_by_one() -> None:
    assert episode_quotas(200, 100) == [2] * 100
    assert sorted(episode_quotas(7, 3)) == [2, 2, 3]
    for episodes, slots in [(1, 1), (5, 4), (99, 10)]:
        shares = episode_quotas(episodes, slots)
        assert sum(shares) == episodes
        assert max(shares) - min(shares) <= 1
