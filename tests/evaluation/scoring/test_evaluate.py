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
from evaluation import Episode, Progress, Protocol, evaluate
from evaluation.agent_info import policy_with_reset
from evaluation.loading import agent_problems
from evaluation.play import action_seed
from evaluation.scoring.evaluate import check_every_level

MakeAgent = Callable[..., IMPALA]

# Return, length and level of each episode, by game and split.
KNOWN = {
    ("fruitbot", "train"): [
        (0.0, 51, 67),
        (0.0, 87, 160),
        (0.0, 94, 115),
        (0.0, 65, 173),
        (0.0, 65, 126),
        (-3.0, 80, 10),
        (0.0, 87, 197),
    ],
    ("chaser", "train"): [
        (0.52, 102, 115),
        (0.28, 112, 160),
        (0.2, 118, 67),
        (0.12, 56, 173),
        (0.68, 110, 126),
        (0.52, 140, 10),
        (0.36, 80, 197),
    ],
    ("leaper", "train"): [
        (0.0, 21, 160),
        (0.0, 26, 67),
        (10.0, 30, 173),
        (0.0, 94, 115),
        (10.0, 27, 10),
        (0.0, 118, 126),
        (0.0, 41, 197),
    ],
    ("fruitbot", "test2"): [
        (-4.0, 65, 1267),
        (-4.0, 72, 1315),
        (1.0, 94, 1360),
        (1.0, 51, 1210),
        (0.0, 65, 1373),
        (0.0, 80, 1326),
        (0.0, 80, 1397),
    ],
    ("chaser", "test2"): [
        (0.32, 76, 1267),
        (0.68, 101, 1315),
        (0.76, 122, 1360),
        (0.44, 54, 1326),
        (0.36, 108, 1373),
        (0.28, 58, 1397),
        (0.32, 1000, 1210),
    ],
    ("leaper", "test2"): [
        (0.0, 36, 1360),
        (0.0, 37, 1267),
        (0.0, 50, 1315),
        (0.0, 23, 1373),
        (10.0, 27, 1210),
        (10.0, 42, 1326),
        (0.0, 20, 1397),
    ],
}


@pytest.mark.parametrize("reset", ["episode", "never"])
def test_stable_baselines3_finds_the_same(make_agent: MakeAgent, reset: str) -> None:
    """Its evaluation runs the policy for all num_envs to the end, ours only for those that still play."""
    agent = make_agent(reset)
    env = ProcgenVecEnv(["chaser"], 4, levels="test1", seed=3)
    expected = evaluate_policy(agent, env, n_eval_episodes=9, return_episode_rewards=True)  # type: ignore[arg-type]
    env.close()
    protocol = Protocol(games=("chaser",), splits=("test1",), episodes=9, num_envs=4, seed=3)
    episodes = evaluate(agent, protocol).score("chaser", "test1").episodes
    assert ([e.score for e in episodes], [e.length for e in episodes]) == expected
    assert len({e.score for e in episodes}) > 4


def test_the_same_seed_gives_the_same_episodes_and_leaves_the_agent_alone(agent: IMPALA) -> None:
    protocol = Protocol(
        games=("fruitbot", "chaser"), splits=("train", "test2"), episodes=5, num_envs=3, greedy=False, seed=4
    )
    before = (torch.get_rng_state(), agent.policy.state_dict())
    reports: list[Progress] = []
    first = evaluate(agent, protocol, reports.append)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in agent.policy.state_dict().items())
    counts = [report.done for report in reports]
    assert (counts[0], counts[-1], counts) == (0, 20, sorted(counts))
    assert {report.total for report in reports} == {20}
    assert reports[0].what == "train, waiting for 5 episodes of fruitbot, 5 episodes of chaser"
    assert reports[-1].what == "test2"
    assert [(s.game, s.levels.name) for s in first.scores] == [
        ("fruitbot", "train"),
        ("chaser", "train"),
        ("fruitbot", "test2"),
        ("chaser", "test2"),
    ]
    assert evaluate(agent, protocol, num_threads=0) == first

    alone = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=False, seed=4, num_envs=3))
    assert alone.score("chaser", "test2") == first.score("chaser", "test2")
    other = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=False, seed=5, num_envs=3))
    assert other.score("chaser", "test2") != first.score("chaser", "test2")
    with torch.inference_mode():
        assert evaluate(agent, protocol) == first
    greedy = evaluate(agent, Protocol(("chaser",), "easy", ("test2",), 5, greedy=True, seed=4, num_envs=3))
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


def test_every_level_is_met_once_whatever_the_number_of_environments(agent: IMPALA) -> None:
    def scores(num_envs: int) -> tuple[Episode, ...]:
        protocol = Protocol(games=("leaper",), splits=("0:12",), every_level=True, num_envs=num_envs)
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
    span, num_envs, steps = 6, 3, 15
    generator = np.random.default_rng(0)
    start = np.zeros(num_envs, dtype=bool)
    before = torch.get_rng_state()
    actors = [
        Actor(policy_with_reset(agent, reset), num_envs, agent.device, torch.Generator())
        for reset in (None, str(span), "never")
    ]
    assert torch.equal(torch.get_rng_state(), before)  # training would draw on from here
    differences = []
    for t in range(steps):
        seen = {
            "rgb": generator.integers(0, 256, (num_envs, 64, 64, 3), dtype=np.uint8),
            "reward": np.ones((num_envs, 1), dtype=np.float32),
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
        protocol = Protocol(games=("chaser",), splits=("train",), episodes=2, num_envs=2, reset=reset)
        found = evaluate(agent, protocol)
        assert found.agent.reset == "episode"
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
    info = evaluate(agent, Protocol(games=("leaper",), splits=("3:4",), episodes=1)).agent
    assert (info.policy, info.algorithm, info.steps, info.recurrent) == (
        "srwm",
        "impala",
        0,
        True,
    )
    assert (info.gradient_horizon, info.rollout_steps) == (50, 50)
    assert info.training_levels == "0:12"


def test_scores_are_those_that_were_always_found(agent: IMPALA) -> None:
    """Whatever changes in how games are played: return, length and level of each episode stay."""
    protocol = Protocol(
        games=("fruitbot", "chaser", "leaper"), splits=("train", "test2"), episodes=7, num_envs=3, seed=4
    )
    results = evaluate(agent, protocol)
    found = {
        (score.game, score.levels.name): [(round(e.score, 4), e.length, e.level) for e in score.episodes]
        for score in results.scores
    }
    assert found == KNOWN
