"""The one loop, with environments and a policy whose right behaviour is known."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from agents.acting import greedy
from envs import GAMES, parse_levels
from envs.native import NO_OP
from evaluation.play import Player, action_seed, level_order, sampler
from evaluation.scoring.evaluate import episode_quotas, play_episodes
from evaluation.scoring.results import Episode
from policies import Policy, PolicyOutput, State


class Clock(DummyVecEnv):
    """Episodes of environment i last i + 1 steps; observations name it, the steps it has made, and the episode's."""

    def __init__(self, num_envs: int, name: int = 0) -> None:
        self.num_envs = num_envs
        self.name = name
        self.observation_space = spaces.Discrete(1)
        self.steps = np.zeros(num_envs, dtype=np.int64)
        self.ended = np.zeros(num_envs, dtype=np.int64)
        self.received: list[NDArray[np.int64]] = []

    def reset(self) -> Any:
        return self._observe()

    def _observe(self) -> dict[str, NDArray[Any]]:
        envs = np.arange(self.num_envs)
        seen = [100 * self.name + envs, self.ended * (envs + 1) + self.steps, self.steps]
        return {"rgb": np.stack(seen, axis=1), "reward": np.zeros((self.num_envs, 1), dtype=np.float32)}

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self.received.append(actions.copy())

    def step_wait(self) -> Any:
        self.steps += 1
        done = self.steps > np.arange(self.num_envs)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env in np.flatnonzero(done):
            infos[env] = {
                "episode": {"r": 10.0 * env + self.ended[env], "l": env + 1},
                "prev_level_seed": int(env),
                "prev_level_complete": bool(env % 2),
            }
        self.ended[done] += 1
        self.steps[done] = 0
        return self._observe(), np.ones(self.num_envs, dtype=np.float32), done, infos


class Counter:
    """A policy that checks that each row of its state stays with its environment and counts that one's steps.

    The most likely action of a row tells its environment.
    """

    device = torch.device("cpu")

    def __init__(self, *names: int) -> None:
        self.names = names
        self.rows = 0

    def initial_state(self, count: int, task: object = 0) -> State:
        assert count == len(self.names)
        return {"name": torch.tensor(self.names), "calls": torch.zeros(count, dtype=torch.int64)}

    def __call__(self, rgb: Tensor, reward: Tensor, state: State, starts: Tensor) -> PolicyOutput:
        names, steps, episode_steps = rgb[0].unbind(1)
        assert state["name"].tolist() == names.tolist()
        assert state["calls"].tolist() == steps.tolist()
        assert starts[0].tolist() == (episode_steps == 0).tolist()
        self.rows += len(names)
        logits = torch.nn.functional.one_hot(names % 100 + 6, 15).float()
        return PolicyOutput(logits[None], torch.zeros(1, len(names)), {**state, "calls": state["calls"] + 1})


def play(
    envs: list[Clock], quotas: list[list[int]], counter: Counter, chooser: Any = greedy, **options: Any
) -> list[list[Episode]]:
    return play_episodes(cast(Policy, counter), envs, quotas, [chooser] * len(envs), **options)


def ends(quotas: list[int]) -> list[tuple[int, int, int]]:
    """(when, environment, number) of all episodes: those of environment i last i + 1 steps."""
    return sorted(((k + 1) * (env + 1), env, k) for env in range(len(quotas)) for k in range(quotas[env]))


@pytest.mark.parametrize("quotas", [[2, 2, 2, 2], [0, 3, 1, 2], [1, 1, 0, 0], [5, 1, 1, 1]])
def test_each_environment_plays_its_share_and_no_step_is_computed_in_vain(quotas: list[int]) -> None:
    env, counter = Clock(4), Counter(0, 1, 2, 3)
    (episodes,) = play([env], [quotas], counter)
    expected = ends(quotas)
    assert [e.score for e in episodes] == [10.0 * env + k for _, env, k in expected]
    assert [e.length for e in episodes] == [env + 1 for _, env, _ in expected]
    assert [e.level for e in episodes] == [env for _, env, _ in expected]
    assert [e.complete for e in episodes] == [bool(env % 2) for _, env, _ in expected]
    lengths = [quota * (env + 1) for env, quota in enumerate(quotas)]
    assert counter.rows == sum(lengths)
    assert len(env.received) == max(lengths)
    for t, actions in enumerate(env.received):
        assert actions.tolist() == [env + 6 if t < length else NO_OP for env, length in enumerate(lengths)]


def test_environments_are_played_side_by_side() -> None:
    quotas = [[1, 2, 3], [4, 0], [0], [1]]
    envs = [Clock(len(shares), name) for name, shares in enumerate(quotas)]
    counter = Counter(0, 1, 2, 100, 101, 200, 300)
    for episodes, shares in zip(play(envs, quotas, counter), quotas, strict=True):
        assert [(e.level, e.score) for e in episodes] == [(env, 10 * env + k) for _, env, k in ends(shares)]
    assert counter.rows == (1 + 2 * 2 + 3 * 3) + 4 + 0 + 1
    assert [len(env.received) for env in envs] == [9, 4, 0, 1]  # an environment that has ended is left alone


def test_actions_can_be_drawn() -> None:
    def received(seed: int) -> list[list[int]]:
        env = Clock(8)
        play([env], [[5] * 8], Counter(*range(8)), sampler(seed, Counter.device))
        return [actions.tolist() for actions in env.received]

    assert received(1) == received(1) != received(2)
    assert len({action for actions in received(1) for action in actions}) > 8


def test_one_call_for_each_episode_and_each_step() -> None:
    calls: list[int] = []
    left: list[list[int]] = []
    play(
        [Clock(3)],
        [[2, 1, 1]],
        Counter(0, 1, 2),
        on_episode=lambda number, episode: calls.append(episode.level),
        on_step=lambda counts, ages: left.append([*counts[0].tolist(), *ages[0].tolist()]),
    )
    assert calls == [0, 0, 1, 2]
    assert left == [[1, 1, 1, 0, 1, 1], [0, 0, 1, 0, 0, 2], [0, 0, 0, 0, 0, 0]]


def test_quotas_must_fit_the_environments() -> None:
    with pytest.raises(ValueError, match="2 quotas for 3 environments"):
        play([Clock(3)], [[1, 1]], Counter(0, 1, 2))


def test_one_that_waits_goes_on_with_the_memory_that_it_had() -> None:
    """The counter's own checks fail where memory, start or observation are those of another one or another time."""

    class Patient(Clock):
        """Environments of which only those that get an action other than NO_OP move."""

        def step_wait(self) -> Any:
            before = self.steps.copy(), self.ended.copy()
            result = super().step_wait()
            for kept, now in zip(before, (self.steps, self.ended), strict=True):
                now[self.received[-1] == NO_OP] = kept[self.received[-1] == NO_OP]
            return (self._observe(), *result[1:])

    env = Patient(4)
    player = Player(cast(Policy, Counter(0, 1, 2, 3)), [env], [greedy])
    pattern = np.random.default_rng(0).random((40, 4)) < 0.5
    made = np.zeros(4, dtype=int)
    for active in pattern:
        player.active = active
        player.act()
        step = player.collect()
        made += active
        assert player.state["calls"].tolist() == made.tolist()
        assert player.state["name"].tolist() == [0, 1, 2, 3]
        assert (step.rewards.tolist(), step.ended[~active].any()) == (active.tolist(), False)


def test_what_is_drawn_for_a_game_does_not_depend_on_the_others() -> None:
    def drawn() -> dict[str, list[int]]:
        levels = parse_levels("all")
        orders = {game: level_order(game, "easy", levels, 3) for game in GAMES}
        return {
            game: [action_seed(3, game, levels), *(next(order) for _ in range(5))]
            for game, order in orders.items()
        }

    before = drawn()
    assert len({tuple(numbers) for numbers in before.values()}) == len(GAMES)
    assert len({number for numbers in before.values() for number in numbers}) == 6 * len(GAMES)
    items = list(GAMES.items())
    others = {"aardvark": items[0][1], **dict(reversed(items))}  # another one comes first
    GAMES.clear()
    GAMES.update(others)
    try:
        after = drawn()
    finally:
        GAMES.clear()
        GAMES.update(items)
    assert {game: after[game] for game in before} == before
    assert after["aardvark"] not in before.values()


def test_shares_are_equal_or_differ_by_one() -> None:
    assert episode_quotas(200, 100) == [2] * 100
    assert sorted(episode_quotas(7, 3)) == [2, 2, 3]
    for episodes, num_envs in [(1, 1), (5, 4), (99, 10)]:
        shares = episode_quotas(episodes, num_envs)
        assert sum(shares) == episodes
        assert max(shares) - min(shares) <= 1
