from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from agents import IMPALA
from agents.episodes import EpisodeLog


def info(result: float, length: int, normalized: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"episode": {"r": result, "l": length, "t": 0.0}}
    return found if normalized is None else {**found, "normalized_return": normalized}


def test_means_of_all_and_of_each_game() -> None:
    log = EpisodeLog(["maze", "heist", "maze", "ninja"])
    log.add("maze", info(10.0, 100, 1.0))
    log.add("maze", info(0.0, 20, -1.0))
    log.add("heist", info(2.0, 30, 0.5))
    assert log.returns() == {"maze": 5.0, "heist": 2.0}
    assert log.metrics() == {
        "rollout/ep_rew_mean": 4.0,
        "rollout/ep_len_mean": 50.0,
        "game/maze/return": 5.0,
        "game/maze/length": 60.0,
        "game/maze/normalized": 0.0,
        "game/heist/return": 2.0,
        "game/heist/length": 30.0,
        "game/heist/normalized": 0.5,
        "rollout/normalized_mean": 0.25,  # of games, not of episodes
    }


def test_only_the_latest_episodes_count() -> None:
    log = EpisodeLog(["maze", "heist"], window=3)
    log.add("heist", info(-5.0, 1))
    for result in range(10):
        log.add("maze", info(float(result), 1))
    assert log.returns() == {"maze": 8.0, "heist": -5.0}


def test_nothing_is_said_before_the_first_end() -> None:
    assert EpisodeLog(["maze"]).metrics() == {}
    assert EpisodeLog(["maze"]).returns() == {}


def test_normalized_returns_are_left_out_where_unknown() -> None:
    log = EpisodeLog(["env"])
    log.add("env", info(1.0, 5))
    assert set(log.metrics()) == {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "game/env/return",
        "game/env/length",
    }


def test_a_state_is_plain_data_and_continues_the_windows() -> None:
    log = EpisodeLog(["maze", "heist"], window=2)
    for result in (1.0, 2.0, 4.0):
        log.add("maze", info(result, 7, 0.5))
    log.add("heist", info(3.0, 5))
    state = json.loads(json.dumps(log.state()))
    other = EpisodeLog(["heist", "maze", "ninja"], window=2)
    other.add("maze", info(100.0, 7))
    other.load_state(state)
    assert other.metrics() == pytest.approx(log.metrics())
    for one in (log, other):
        one.add("maze", info(8.0, 7, 0.5))
    assert other.returns() == log.returns() == {"maze": 6.0, "heist": 3.0}
    EpisodeLog(["ninja"]).load_state(state)  # of none of its games


def test_episodes_are_counted_for_the_games_they_were_played_in(
    procgen: Callable[..., Any], tiny: Callable[..., Any]
) -> None:
    seen: dict[str, list[float]] = {}

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            for step in self.locals["infos"]:
                if step:
                    seen.setdefault(step["game"], []).append(step["episode"]["r"])
            return True

    agent = IMPALA(tiny(), procgen(), seed=0, rollout_steps=20)
    agent.learn(5 * 120, callback=Watch())
    assert len(seen) == 3
    assert agent.episode_returns == {
        game: pytest.approx(sum(seen[game]) / len(seen[game])) for game in agent.episode_returns
    }
    assert agent.episode_returns.keys() == seen.keys()
