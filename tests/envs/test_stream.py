"""Streams of games."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import UserError
from envs import StreamVecEnv, TaskDuration, parse_task_duration
from envs.native import NO_OP

GAMES = ["chaser", "leaper", "fruitbot"]


def play(env: StreamVecEnv, steps: int) -> list[dict[str, Any]]:
    """Random actions; what each step showed."""
    actions = np.random.default_rng(0)
    env.reset()
    record = []
    for _ in range(steps):
        before = {
            "game": env.current_games,
            "stays": env.task_indices.copy(),
            "index": env.episodes_in_task.copy(),
        }
        observation, rewards, dones, infos = env.step(actions.integers(0, 15, env.num_envs))
        record.append(
            {
                "before": before,
                "rgb": observation["rgb"],
                "reward": observation["reward"],
                "rewards": rewards,
                "dones": dones,
                "infos": infos,
                "switched": env.switched.copy(),
                "stays": env.task_indices.copy(),
                "game": env.current_games,
            }
        )
    return record


@pytest.fixture(scope="module")
def record() -> list[dict[str, Any]]:
    env = StreamVecEnv(GAMES, 2, "2 episodes", seed=3)
    try:
        return play(env, 1000)
    finally:
        env.close()


def stays_of(record: list[dict[str, Any]], slot: int) -> list[tuple[str, int]]:
    """Game of each whole stay and how many episodes it had."""
    found, count = [], 0
    for step in record:
        count += bool(step["dones"][slot])
        if step["switched"][slot]:
            found.append((step["before"]["game"][slot], count))
            count = 0
    return found


def test_it_switches_after_the_given_number_of_episodes_to_another_game(record: list[dict[str, Any]]) -> None:
    for slot in range(2):
        stays = stays_of(record, slot)
        assert len(stays) >= 4
        assert {count for _, count in stays} == {2}
        games = [game for game, _ in stays]
        assert all(left != right for left, right in itertools.pairwise(games))
        assert set(games[:3]) == set(GAMES)  # each round plays all


def test_only_the_counters_tell_a_switch(record: list[dict[str, Any]]) -> None:
    for step in record:
        # Every switch ends an episode, and its info is that of any other end.
        assert np.all(~step["switched"] | step["dones"])
        for slot in np.flatnonzero(step["dones"]):
            info = step["infos"][slot]
            assert info["game"] == step["before"]["game"][slot]
            assert not any("switch" in key or "stay" in key for key in info)
        assert np.all(step["stays"] == step["before"]["stays"] + step["switched"])
        assert np.all(step["before"]["index"] < 2)
        np.testing.assert_array_equal(step["reward"][:, 0], np.clip(step["rewards"], -1, 1))


def test_episodes_are_whole(record: list[dict[str, Any]]) -> None:
    returns, lengths = np.zeros(2), np.zeros(2, dtype=int)
    for step in record:
        returns += step["rewards"]
        lengths += 1
        for slot in np.flatnonzero(step["dones"]):
            assert step["infos"][slot]["episode"]["r"] == pytest.approx(returns[slot])
            assert step["infos"][slot]["episode"]["l"] == lengths[slot]
            returns[slot] = lengths[slot] = 0


def test_the_seed_alone_decides_and_streams_differ(record: list[dict[str, Any]]) -> None:
    env = StreamVecEnv(GAMES, 2, "2 episodes", seed=3)
    again = play(env, 300)
    for left, right in zip(record, again, strict=False):
        np.testing.assert_array_equal(left["rgb"], right["rgb"])
        assert left["game"] == right["game"]
    env.seed(4)
    other = play(env, 300)
    env.seed(3)
    same = play(env, 300)
    env.close()
    assert any(left["game"] != right["game"] for left, right in zip(record, other, strict=False))
    assert all(np.array_equal(x["rgb"], y["rgb"]) for x, y in zip(same, again, strict=True))
    assert any(not np.array_equal(step["rgb"][0], step["rgb"][1]) for step in record)


def test_a_stream_does_not_depend_on_the_others() -> None:
    def first_frames(streams: int) -> NDArray[np.uint8]:
        env = StreamVecEnv(GAMES, streams, "1 episode", seed=5)
        env.reset()
        frames = [env.step(np.full(streams, NO_OP))[0]["rgb"][0] for _ in range(40)]  # type: ignore[index, call-overload]
        env.close()
        return np.stack(frames)

    np.testing.assert_array_equal(first_frames(1), first_frames(3))


def test_a_stay_in_steps_cuts_the_episode_without_a_sign() -> None:
    env = StreamVecEnv(["chaser", "leaper"], 1, "7 steps")
    record = play(env, 50)
    env.close()
    assert [number for number, step in enumerate(record, 1) if step["switched"][0]] == list(range(7, 50, 7))
    cut = [step for step in record if step["switched"][0] and not step["dones"][0]]
    assert cut
    assert all(step["infos"] == [{}] for step in cut)


def test_drawn_stays_have_every_length() -> None:
    env = StreamVecEnv(["chaser", "leaper"], 4, "2:4 steps")
    record = play(env, 120)
    env.close()
    lengths = set()
    for slot in range(4):
        places = [number for number, step in enumerate(record) if step["switched"][slot]]
        lengths |= set(np.diff(places).tolist())
    assert lengths == {2, 3, 4}


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("4 episodes", TaskDuration(4, 4)),
        ("1 episode", TaskDuration(1, 1)),
        ("3", TaskDuration(3, 3)),
        (" 2:6 episodes", TaskDuration(2, 6)),
        ("500 steps", TaskDuration(500, 500, "steps")),
        ("300:700 steps", TaskDuration(300, 700, "steps")),
    ],
)
def test_stays_by_text(text: str, duration: TaskDuration) -> None:
    assert parse_task_duration(text) == duration
    assert parse_task_duration(str(duration)) == duration


@pytest.mark.parametrize("text", ["", "often", "0 steps", "5:2", "-1", "2 hours", "1.5"])
def test_impossible_stays(text: str) -> None:
    with pytest.raises(UserError, match="task duration"):
        parse_task_duration(text)


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(UserError) as raised:
        StreamVecEnv(["maze"], 0, mode="memori")
    for part in ("0 streams", "maze alone has nothing to switch to", "unknown mode 'memori'"):
        assert part in str(raised.value)
    with pytest.raises(UserError, match="unknown game 'mase'"):
        StreamVecEnv(["mase", "heist"])


def test_the_interface_of_a_vec_env() -> None:
    env = StreamVecEnv(GAMES, 2)
    assert env.get_attr("game") == env.current_games
    assert env.get_attr("mode", 1) == ["easy"]
    assert env.env_is_wrapped(object) == [False, False]
    with pytest.raises(AttributeError, match="cannot be changed"):
        env.set_attr("mode", "hard")
    with pytest.raises(AttributeError, match="no method"):
        env.env_method("fly")
    with pytest.raises(RuntimeError, match="step_async"):
        env.step_wait()
    env.close()
    env.close()
