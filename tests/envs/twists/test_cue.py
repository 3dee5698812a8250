"""A cue in the first frame, questions about it, and what right answers are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs import GroupedVecEnv, ProcgenVecEnv, grouped_procgen
from envs.twists.cue import ANSWERS, BORDER, COLOURS, Cue
from helpers import assert_same, play

GAMES = ["leaper", "fruitbot"]
ENVS, STEPS, DELAY = 4, 100, 7


def new_env(twist: str | None = f"cue {DELAY}", **options: Any) -> ProcgenVecEnv:
    return ProcgenVecEnv(GAMES, ENVS, seed=1, num_threads=0, twist=twist, **options)


def actions(steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(3).integers(15, size=(steps, ENVS))


def border(image: np.ndarray) -> np.ndarray:
    """The pixels (N, 3) that a border covers."""
    inside = np.zeros(image.shape[:2], bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    found: np.ndarray = image[~inside]
    return found


def test_first_frames_show_the_level_s_colour_questions_are_white_and_right_answers_are_rewarded() -> None:
    plain_env, env = new_env(None), new_env()
    before, after = plain_env.reset()["rgb"], env.reset()["rgb"]
    ages, seen, rewarded = [0] * ENVS, {"cue": 0, "question": 0, "other": 0}, 0
    for step in actions():
        colours = Cue(DELAY).colours(np.array(env.current_levels))
        for i, age in enumerate(ages):
            inner = slice(BORDER, -BORDER)
            assert np.array_equal(after[i, inner, inner], before[i, inner, inner])
            kind = "cue" if age == 0 else "question" if age % DELAY == 0 else "other"
            drawn = {"cue": COLOURS[colours[i]], "question": 255, "other": border(before[i])}
            assert (border(after[i]) == drawn[kind]).all()
            seen[kind] += 1
        worth = [age > 0 and age % DELAY == 0 for age in ages] & (ANSWERS[colours] == step)
        plain, changed = plain_env.step(step), env.step(step)
        assert np.array_equal(changed[1] - plain[1], worth)
        before, after, rewarded = plain[0]["rgb"], changed[0]["rgb"], rewarded + worth.sum()
        ages = [0 if done else age + 1 for age, done in zip(ages, changed[2], strict=True)]
    assert min(seen.values()) > ENVS
    assert rewarded > 0


def test_who_remembers_is_rewarded_at_every_question_and_who_does_not_at_one_of_four() -> None:
    def answered(choose: Any) -> float:
        env = ProcgenVecEnv(["chaser"], 32, levels="all", seed=4, num_threads=0, twist="cue 5")
        plain = ProcgenVecEnv(["chaser"], 32, levels="all", seed=4, num_threads=0)
        plain.reset()
        rgb, ages, colours = env.reset()["rgb"], np.zeros(32, int), np.zeros(32, int)
        questions, right = 0.0, 0.0
        for _ in range(60):
            first = ages == 0
            colours[first] = [np.flatnonzero((image[0, 0] == COLOURS).all(1))[0] for image in rgb[first]]
            chosen = choose(colours)
            questions += np.sum((ages > 0) & (ages % 5 == 0))
            observation, rewards, dones, _ = env.step(chosen)
            right += float(np.sum(rewards - plain.step(chosen)[1]))
            rgb, ages = observation["rgb"], np.where(dones, 0, ages + 1)
        return right / questions

    assert answered(lambda colours: ANSWERS[colours]) == 1.0
    assert 0.1 < answered(lambda colours: np.full(32, ANSWERS[0])) < 0.4


def test_colours_are_even_and_a_level_keeps_its_own() -> None:
    found = Cue(9).colours(np.arange(100_000))
    assert np.bincount(found, minlength=4) == pytest.approx([25_000] * 4, rel=0.02)
    assert np.array_equal(Cue(3).colours(np.arange(50)), found[:50])
    # neighbours do not follow one another in an order that a level's number would tell
    assert np.bincount(found[:200], minlength=4).min() > 30


def test_a_state_goes_on_before_a_question_and_observing_again_shows_the_same() -> None:
    env = new_env()
    env.reset()
    play(env, actions()[:20])
    state, here = env.get_state(), env.observe()
    other = new_env()
    assert_same(other.set_state(state), here)
    assert_same(play(other, actions()[20:]), play(env, actions()[20:]))


def test_groups_ask_as_well() -> None:
    env = grouped_procgen(GAMES, ENVS, groups=2, num_threads=0, twist="cue 1")
    assert isinstance(env, GroupedVecEnv)
    env.reset()
    assert (play(env, actions(1))[0]["rgb"][:, 0, 0] == 255).all()


def test_a_chosen_level_begins_with_its_cue() -> None:
    env = new_env("cue 50")
    env.reset()
    play(env, actions(3))
    rgb = env.play_levels([1, 2], [7, 8])["rgb"]
    assert np.array_equal(rgb[1:3, 0, 0], COLOURS[Cue(50).colours(np.array([7, 8]))])
