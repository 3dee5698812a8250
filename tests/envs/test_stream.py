"""Streams of games."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import helpers
from agents import read_checkpoint, write_checkpoint
from common.errors import UserError
from envs import StreamVecEnv, TaskDuration, parse_task_duration
from envs.native import NO_OP
from helpers import assert_same

GAMES = ["chaser", "leaper", "fruitbot"]


def play(env: StreamVecEnv, steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random actions; what each step showed, and what the environment's counters said before and after it."""
    record = []
    for action in np.random.default_rng(seed).integers(0, 15, size=(steps, env.num_envs)):
        before = {
            "game": env.current_games,
            "tasks": env.task_indices.copy(),
            "index": env.episodes_in_task.copy(),
        }
        (step,) = helpers.play(env, action[None])
        after = {
            "before": before,
            "switched": env.switched.copy(),
            "tasks": env.task_indices.copy(),
            "game": env.current_games,
        }
        record.append({**step, **after})
    return record


def play_anew(env: StreamVecEnv, steps: int) -> list[dict[str, Any]]:
    env.reset()
    return play(env, steps)


@pytest.fixture(scope="module")
def record() -> list[dict[str, Any]]:
    env = StreamVecEnv(GAMES, 2, "2 episodes", seed=3)
    try:
        return play_anew(env, 1000)
    finally:
        env.close()


def tasks_of(record: list[dict[str, Any]], env: int) -> list[tuple[str, int]]:
    """Game of each whole task and how many episodes it had."""
    found, count = [], 0
    for step in record:
        count += bool(step["dones"][env])
        if step["switched"][env]:
            found.append((step["before"]["game"][env], count))
            count = 0
    return found


def test_it_switches_after_the_given_number_of_episodes_to_another_game(record: list[dict[str, Any]]) -> None:
    for env in range(2):
        tasks = tasks_of(record, env)
        assert len(tasks) >= 4
        assert {count for _, count in tasks} == {2}
        games = [game for game, _ in tasks]
        assert all(left != right for left, right in itertools.pairwise(games))
        assert set(games[:3]) == set(GAMES)  # each round plays all


def test_counters_and_infos_tell_a_switch_and_observations_do_not(record: list[dict[str, Any]]) -> None:
    for step in record:
        assert np.all(~step["switched"] | step["dones"])  # every switch ends an episode
        for env, info in enumerate(step["infos"]):
            if step["dones"][env]:
                assert info["game"] == step["before"]["game"][env]
            assert info.get("next_game") == (step["game"][env] if step["switched"][env] else None)
        assert np.all(step["tasks"] == step["before"]["tasks"] + step["switched"])
        assert np.all(step["before"]["index"] < 2)
        np.testing.assert_array_equal(step["reward"][:, 0], np.clip(step["rewards"], -1, 1))


def test_episodes_are_whole(record: list[dict[str, Any]]) -> None:
    returns, lengths = np.zeros(2), np.zeros(2, dtype=int)
    for step in record:
        returns += step["rewards"]
        lengths += 1
        for env in np.flatnonzero(step["dones"]):
            assert step["infos"][env]["episode"]["r"] == pytest.approx(returns[env])
            assert step["infos"][env]["episode"]["l"] == lengths[env]
            returns[env] = lengths[env] = 0


def test_the_seed_alone_decides_and_streams_differ(record: list[dict[str, Any]]) -> None:
    env = StreamVecEnv(GAMES, 2, "2 episodes", seed=3)
    again = play_anew(env, 300)
    for left, right in zip(record, again, strict=False):
        np.testing.assert_array_equal(left["rgb"], right["rgb"])
        assert left["game"] == right["game"]
    env.seed(4)
    other = play_anew(env, 300)
    env.seed(3)
    same = play_anew(env, 300)
    env.close()
    assert any(left["game"] != right["game"] for left, right in zip(record, other, strict=False))
    assert all(np.array_equal(x["rgb"], y["rgb"]) for x, y in zip(same, again, strict=True))
    assert any(not np.array_equal(step["rgb"][0], step["rgb"][1]) for step in record)


def test_an_environment_does_not_depend_on_the_others() -> None:
    def first_frames(num_envs: int) -> NDArray[np.uint8]:
        env = StreamVecEnv(GAMES, num_envs, "1 episode", seed=5)
        env.reset()
        frames = [env.step(np.full(num_envs, NO_OP))[0]["rgb"][0] for _ in range(40)]  # type: ignore[index, call-overload]
        env.close()
        return np.stack(frames)

    np.testing.assert_array_equal(first_frames(1), first_frames(3))


def test_a_task_in_steps_cuts_the_episode_without_a_done() -> None:
    env = StreamVecEnv(["chaser", "leaper"], 1, "7 steps")
    record = play_anew(env, 50)
    env.close()
    assert [number for number, step in enumerate(record, 1) if step["switched"][0]] == list(range(7, 50, 7))
    cut = [step for step in record if step["switched"][0] and not step["dones"][0]]
    assert cut
    assert all(step["infos"] == [{"next_game": step["game"][0]}] for step in cut)


def test_drawn_durations_have_every_length() -> None:
    env = StreamVecEnv(["chaser", "leaper"], 4, "2:4 steps")
    record = play_anew(env, 120)
    env.close()
    lengths = set()
    for env in range(4):
        places = [number for number, step in enumerate(record) if step["switched"][env]]
        lengths |= set(np.diff(places).tolist())
    assert lengths == {2, 3, 4}


def test_the_level_of_a_new_task_is_told() -> None:
    env = StreamVecEnv(["chaser", "leaper"], 2, "1 episode", levels="0:1000000")
    try:
        env.reset()
        for action in np.random.default_rng(0).integers(15, size=(300, 2)):
            _, _, dones, infos = env.step(action)
            for number in np.flatnonzero(dones):
                assert infos[number]["level_seed"] == env.current_levels[number]
        assert env.task_indices.sum() > 3
    finally:
        env.close()


# State


@pytest.mark.parametrize("duration", ["2:3 episodes", "30:60 steps"])
def test_a_continued_run_repeats_the_whole_one(duration: str) -> None:
    """Also in the middle of a task, with other games half-played, in an environment that has played before."""
    whole = StreamVecEnv(GAMES, 2, duration, seed=3)
    other = StreamVecEnv(GAMES, 2, duration, seed=8)
    try:
        whole.reset()
        play(whole, 250)
        last = play(whole, 70, seed=1)[-1]
        state = whole.get_state()
        expected = play(whole, 400, seed=2)
        assert expected[-1]["tasks"].sum() > last["tasks"].sum() >= 2

        play_anew(other, 40)
        observation = other.set_state(state)
        assert_same(observation, {key: last[key] for key in ("rgb", "reward")})
        assert other.get_attr("game") == last["game"]
        assert_same(play(other, 400, seed=2), expected)
        assert_same(other.get_state(), whole.get_state())
        whole.reset(), other.reset()
        assert_same(play(other, 50), play(whole, 50))
    finally:
        whole.close()
        other.close()


def test_a_state_holds_a_seed_that_waits_for_the_reset() -> None:
    one, other = (StreamVecEnv(GAMES, 1, seed=seed) for seed in (1, 2))
    one.seed(5)
    other.set_state(one.get_state())
    assert_same(one.reset(), other.reset())
    assert one.current_seed == other.current_seed == 5
    assert_same(play(one, 40), play(other, 40))
    one.close()
    other.close()


def test_a_state_can_be_part_of_a_checkpoint(tmp_path: Path) -> None:
    env = StreamVecEnv(GAMES, 1, "5 steps")
    play_anew(env, 13)  # the second round of games begins, and no choice is left of the first
    state = env.get_state()
    write_checkpoint(tmp_path / "a.ckpt", {"env": state})
    assert_same(read_checkpoint(tmp_path / "a.ckpt")["env"], state)
    env.close()


@pytest.mark.parametrize(
    "other",
    [
        {"games": ["chaser", "fruitbot", "leaper"]},
        {"num_envs": 2},
        {"mode": "hard"},
        {"levels": "test1"},
        {"task_duration": "4:5 episodes"},
    ],
)
def test_a_state_of_another_environment_is_refused(other: dict[str, Any]) -> None:
    env, foreign = StreamVecEnv(GAMES, 1), StreamVecEnv(**{"games": GAMES, "num_envs": 1, **other})
    with pytest.raises(UserError, match="environment state has"):
        env.set_state(foreign.get_state())
    env.close()
    foreign.close()


def test_a_damaged_state_is_refused() -> None:
    env = StreamVecEnv(GAMES, 1)
    state = env.get_state()
    flipped = state["0/2/native"].copy()
    flipped[1000] ^= 1
    with pytest.raises(UserError, match="damaged"):
        env.set_state({**state, "0/2/native": flipped})
    with pytest.raises(UserError, match=r"not an environment state.*switched"):
        env.set_state({"games": "x"})
    for lost, words in (("0/", "0 environments, this one has 1"), ("0/1/", "2 games, this one has 3")):
        rest = {key: value for key, value in state.items() if not key.startswith(lost)}
        with pytest.raises(UserError, match=words):
            env.set_state(rest)
    with pytest.raises(UserError, match=r"not an environment state.*order"):
        env.set_state({key: value for key, value in state.items() if key != "0/order"})
    env.close()


def test_nothing_is_saved_or_continued_in_the_middle_of_a_step() -> None:
    env = StreamVecEnv(GAMES, 1)
    env.reset()
    state = env.get_state()
    env.step_async(np.array([NO_OP]))
    with pytest.raises(RuntimeError, match="get_state in the middle of a step"):
        env.get_state()
    with pytest.raises(RuntimeError, match="set_state in the middle of a step"):
        env.set_state(state)
    env.close()


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
def test_task_durations_by_text(text: str, duration: TaskDuration) -> None:
    assert parse_task_duration(text) == duration
    assert parse_task_duration(str(duration)) == duration


@pytest.mark.parametrize("text", ["", "often", "0 steps", "5:2", "-1", "2 hours", "1.5"])
def test_impossible_task_durations(text: str) -> None:
    with pytest.raises(UserError, match="task duration"):
        parse_task_duration(text)


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(UserError) as raised:
        StreamVecEnv(["maze"], 0, mode="memori")
    for part in ("0 environments", "maze alone has nothing to switch to", "unknown mode 'memori'"):
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
