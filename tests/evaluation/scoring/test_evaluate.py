"""Evaluation on the real games."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy

from agents import IMPALA, Actor, Agent
from agents.spaces import spaces_of
from common.errors import UserError
from envs import ProcgenVecEnv, parse_levels
from evaluation import Episode, Protocol, evaluate
from evaluation.evaluator import action_seed, check_every_level
from evaluation.subject import agent_problems, policy_with_reset

MakeAgent = Callable[..., IMPALA]


@pytest.mark.parametrize("reset", ["episode", "never"])
def test_stable_baselines3_finds_the_same(make_agent: MakeAgent, reset: str) -> None:
    """Its evaluation runs the policy for all slots to the end, ours only for those that still play."""
    agent = make_agent(reset)
    env = ProcgenVecEnv(["chaser"], 4, levels="test1", seed=3)
    expected = evaluate_policy(agent, env, n_eval_episodes=9, return_episode_rewards=True)  # type: ignore[arg-type]
    env.close()
    protocol = Protocol(games=("chaser",), splits=("test1",), episodes=9, slots=4, seed=3)
    episodes = evaluate(agent, protocol).score("chaser", "test1").episodes
    assert ([e.score for e in episodes], [e.length for e in episodes]) == expected
    assert len({e.score for e in episodes}) > 4


def test_the_same_seed_gives_the_same_episodes_and_leaves_the_agent_alone(agent: IMPALA) -> None:
    protocol = Protocol(
        games=("fruitbot", "chaser"), splits=("train", "test2"), episodes=5, slots=3, greedy=False, seed=4
    )
    before = (torch.get_rng_state(), agent.policy.state_dict())
    progress: list[tuple[int, int, str]] = []
    first = evaluate(agent, protocol, lambda *report: progress.append(report))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in agent.policy.state_dict().items())
    assert [(done, total) for done, total, _ in progress] == [(done, 20) for done in range(1, 21)]
    assert progress[0][2] == "train"
    assert progress[-1][2] == "test2"
    assert [(s.game, s.levels.name) for s in first.scores] == [
        ("fruitbot", "train"),
        ("chaser", "train"),
        ("fruitbot", "test2"),
        ("chaser", "test2"),
    ]
    assert evaluate(agent, protocol, num_threads=0) == first

    alone = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=False, seed=4, slots=3))
    assert alone.score("chaser", "test2") == first.score("chaser", "test2")
    other = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=False, seed=5, slots=3))
    assert other.score("chaser", "test2") != first.score("chaser", "test2")
    greedy = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=True, seed=4, slots=3))
    assert greedy.score("chaser", "test2") != first.score("chaser", "test2")


def test_what_actions_are_drawn_from() -> None:
    levels = parse_levels("train")
    seeds = [
        action_seed(0, "maze", levels),
        action_seed(1, "maze", levels),
        action_seed(0, "heist", levels),
        action_seed(0, "maze", parse_levels("test1")),
        action_seed(0, "maze", parse_levels("0:9")),
    ]
    assert len(set(seeds)) == 5
    assert action_seed(0, "maze", parse_levels("0:200")) == seeds[0]


def test_every_level_is_met_once_whatever_the_slots(agent: IMPALA) -> None:
    def scores(slots: int) -> tuple[Episode, ...]:
        protocol = Protocol(games=("leaper",), splits=("0:12",), every_level=True, slots=slots)
        return evaluate(agent, protocol).score("leaper", "0:12").episodes

    in_waves = scores(5)
    assert [episode.level for episode in in_waves] == list(range(12))
    assert len({episode.length for episode in in_waves}) > 4
    assert scores(12) == in_waves


def test_levels_missed_or_met_twice_are_noticed() -> None:
    def met(*levels: int) -> list[Episode]:
        return [Episode(0.0, 1, level, False) for level in levels]

    check_every_level(met(5, 3, 4), parse_levels("3:6"))
    for wrong in (met(3, 4), met(3, 4, 4), met(3, 4, 5, 5), met(3, 4, 5, 6)):
        with pytest.raises(RuntimeError, match="exactly once"):
            check_every_level(wrong, parse_levels("3:6"))


def test_a_reset_rule_takes_the_place_of_the_trained_one(agent: IMPALA) -> None:
    span, slots, steps = 6, 3, 15
    generator = np.random.default_rng(0)
    start = np.zeros(slots, dtype=bool)
    before = torch.get_rng_state()
    actors = [
        Actor(policy_with_reset(agent, reset), slots, agent.device, torch.Generator())
        for reset in (None, str(span), "never")
    ]
    assert torch.equal(torch.get_rng_state(), before)  # training would draw on from here
    differences = []
    for t in range(steps):
        seen = {
            "rgb": generator.integers(0, 256, (slots, 64, 64, 3), dtype=np.uint8),
            "reward": np.ones((slots, 1), dtype=np.float32),
        }
        logits = [actor.step(seen, start | (t == 0)).logits for actor in actors]
        differences.append(
            (float((logits[1] - logits[0]).abs().max()), float((logits[2] - logits[0]).abs().max()))
        )
    assert all(by_span == 0 for by_span, _ in differences[:span])
    assert all(by_span > 1e-3 for by_span, _ in differences[span:])
    assert all(never == 0 for _, never in differences)  # no episode has ended yet
    assert agent.policy.config.reset == "episode"


def test_a_reset_rule_changes_scores_and_is_reported(agent: IMPALA) -> None:
    def results(reset: str | None) -> tuple[tuple[Episode, ...], str | None]:
        protocol = Protocol(games=("chaser",), splits=("train",), episodes=2, slots=2, reset=reset)
        found = evaluate(agent, protocol)
        assert found.subject.reset == "episode"
        return found.scores[0].episodes, found.protocol.reset

    trained, _ = results(None)
    assert results("episode")[0] == trained
    changed, reported = results("3")
    assert changed != trained
    assert reported == "3"


def test_agents_for_other_environments_are_refused() -> None:
    observation, action = spaces_of((8, 8, 3), 4)
    stranger = cast(Agent, SimpleNamespace(observation_space=observation, action_space=action))
    assert agent_problems(stranger) == [
        "this agent does not play ProcGen: it sees 8 x 8 x 3 images and has 4 actions"
    ]
    with pytest.raises(UserError, match=r"unknown game 'mzae'.*does not play ProcGen"):
        evaluate(stranger, Protocol(games=("mzae",)))


def test_facts_about_the_agent(agent: IMPALA) -> None:
    subject = evaluate(agent, Protocol(games=("leaper",), splits=("3:4",), episodes=1)).subject
    assert (subject.policy, subject.algorithm, subject.steps, subject.recurrent) == (
        "srwm",
        "impala",
        0,
        True,
    )
    assert (subject.gradient_horizon, subject.rollout_length) == (50, 50)
    assert subject.training_levels == parse_levels("0:12")
