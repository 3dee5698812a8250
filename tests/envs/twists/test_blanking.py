"""Frames that are withheld are black, and nothing else is another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from envs import GroupedVecEnv, ProcgenVecEnv, StreamVecEnv, grouped_procgen, parse_twist
from envs.twists import Blanking
from helpers import assert_same, play

GAMES = ["leaper", "fruitbot"]
ENVS, STEPS = 4, 120


def actions(steps: int = STEPS, num_envs: int = ENVS) -> np.ndarray:
    return np.random.default_rng(3).integers(15, size=(steps, num_envs))


def new_env(twist: str | None, seed: int = 1, **options: Any) -> ProcgenVecEnv:
    return ProcgenVecEnv(GAMES, ENVS, seed=seed, num_threads=0, twist=twist, **options)


@given(st.integers(2, 50).flatmap(lambda period: st.tuples(st.integers(1, period - 1), st.just(period))))
def test_of_every_period_the_last_frames_are_hidden(numbers: tuple[int, int]) -> None:
    hidden, period = numbers
    found = parse_twist(f"blank {hidden} of {period}")
    assert isinstance(found, Blanking)
    assert found.hides(np.arange(3 * period)).tolist() == 3 * ([False] * (period - hidden) + [True] * hidden)


def test_only_the_first_frames_may_be_shown() -> None:
    found = parse_twist(" blank  after 2 ")
    assert found == Blanking(2, None)
    assert found.hides(np.arange(5)).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4 of 8",
        "cue 0",
        "cue -1",
        "cue",
        "cue x",
        f"cue {10**9}",
        "blank 0 of 8",
        "blank 8 of 8",
        "blank 9 of 8",
        "blank after 0",
        "blank after -1",
        "blank 4 of 8 of 9",
        f"blank 1 of {10**9}",
    ],
)
def test_what_would_hide_nothing_or_a_first_frame_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"twist .*: give blank K of P"):
        parse_twist(text)
    with pytest.raises(UserError, match=r"twist .*: give blank K of P"):
        new_env(text)


@pytest.mark.parametrize(
    ("twist", "shown"), [("blank 3 of 5", lambda age: age % 5 < 2), ("blank after 1", lambda age: age < 1)]
)
def test_images_are_black_at_these_ages_of_episodes_and_else_as_they_were(twist: str, shown: Any) -> None:
    plain_env, blanked_env = new_env(None), new_env(twist)
    assert_same(plain_env.reset(), blanked_env.reset())
    plain, blanked = play(plain_env, actions()), play(blanked_env, actions())
    ages, seen, ended = np.zeros(ENVS, dtype=int), 0, 0
    for before, after in zip(plain, blanked, strict=True):
        ages = np.where(before["dones"], 0, ages + 1)
        visible = np.array([shown(age) for age in ages])
        assert np.array_equal(after["rgb"][visible], before["rgb"][visible])
        assert not after["rgb"][~visible].any()
        assert before["rgb"].any(axis=(1, 2, 3)).all()
        assert_same({**before, "rgb": None}, {**after, "rgb": None})
        seen, ended = seen + visible.sum(), ended + before["dones"].sum()
    assert 0 < seen < STEPS * ENVS
    assert ended >= 2


def test_observing_again_shows_no_more_and_leaves_the_game_its_picture() -> None:
    env = new_env("blank 4 of 6")
    first = env.reset()
    assert_same(env.observe(), first)
    last = play(env, actions(5))[-1]
    assert not last["rgb"].any()
    assert_same(env.observe(), {"rgb": last["rgb"], "reward": last["reward"]})
    assert env._native.observe()[1].any()


def test_a_level_that_is_chosen_begins_with_a_frame_that_is_shown() -> None:
    env = new_env("blank after 1")
    env.reset()
    play(env, actions(3))
    rgb = env.play_levels([1, 2], [7, 8])["rgb"]
    assert rgb.any(axis=(1, 2, 3)).tolist() == [False, True, True, False]


def test_a_state_goes_on_in_the_middle_of_a_period_and_fits_the_same_frames_alone() -> None:
    env = new_env("blank 3 of 5")
    env.reset()
    play(env, actions()[:33])
    state, here = env.get_state(), env.observe()
    other = new_env("blank 3 of 5", seed=9)
    assert_same(other.set_state(state), here)
    assert_same(play(other, actions()[33:]), play(env, actions()[33:]))
    with pytest.raises(UserError, match="twist 'blank 3 of 5', this environment has 'blank 2 of 5'"):
        new_env("blank 2 of 5").set_state(state)


def test_groups_blank_their_frames() -> None:
    env = grouped_procgen(GAMES, 4, groups=2, num_threads=0, twist="blank after 1")
    assert isinstance(env, GroupedVecEnv)
    assert env.reset()["rgb"].any(axis=(1, 2, 3)).all()
    assert not play(env, actions(1))[0]["rgb"].any()
    state = env.get_state()
    assert_same(env.set_state(state)["rgb"], np.zeros((4, 64, 64, 3), np.uint8))


def test_streams_count_from_the_start_of_each_episode() -> None:
    env = StreamVecEnv(GAMES, 2, "1 episode", seed=2, twist="blank after 1")
    env.reset()
    steps = play(env, actions(150, 2))
    for step in steps:
        assert np.array_equal(step["rgb"].any(axis=(1, 2, 3)), step["dones"])
    assert sum(step["dones"].sum() for step in steps) >= 1
    with pytest.raises(UserError, match="this environment has 'blank after 2'"):
        StreamVecEnv(GAMES, 2, "1 episode", twist="blank after 2").set_state(env.get_state())


def test_pictures_for_people_show_what_the_agent_does_not_see() -> None:
    env = new_env("blank after 1", render_mode="rgb_array")
    env.reset()
    play(env, actions(1))
    assert all(image is not None and image.any() for image in env.get_images())
