"""Scores in a stream of games, by episodes since the switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from agents import IMPALA
from common.errors import UserError
from envs import normalized_score
from evaluation import streams
from evaluation.progress import Progress
from evaluation.streams import (
    StreamEpisode,
    StreamProtocol,
    adaptation_curve,
    from_json,
    play_streams,
    to_json,
)
from policies import Policy

PROTOCOL = StreamProtocol(
    ("chaser", "leaper"),
    split="0:12",
    task_duration="2 episodes",
    streams=2,
    tasks=1,
    reset_conditions=("carried", "switch", "episode", "7"),
)


SMALL = replace(PROTOCOL, task_duration="1 episode", tasks=1, reset_conditions=("carried",))


@dataclass
class Watched:
    """One playing of `PROTOCOL`: its episodes, and what happened while all streams were played.

    Attributes:
        cleared: by condition, for each step, which memories were cleared before it.
        events: by condition, for each step, where episodes ended and where games were switched.
    """

    episodes: list[StreamEpisode]
    cleared: dict[str, list[tuple[bool, ...]]]
    events: dict[str, list[tuple[tuple[bool, ...], tuple[bool, ...]]]]


@pytest.fixture(scope="module")
def watched(agent: IMPALA) -> Watched:
    cleared: dict[str, list[tuple[bool, ...]]] = {condition: [] for condition in PROTOCOL.reset_conditions}
    events: list[Any] = []
    forward, stepped = Policy.forward, streams.StreamVecEnv.step_wait

    conditions = PROTOCOL.reset_conditions

    def spy(self: Policy, rgb: Any, reward: Any, state: Any, starts: Any) -> Any:
        if starts.shape[1] == 2 * len(conditions):  # the streams of the first condition come first, and so on
            for number, condition in enumerate(conditions):
                cleared[condition].append(tuple(starts[0, 2 * number : 2 * number + 2].tolist()))
        return forward(self, rgb, reward, state, starts)

    def watch(self: Any) -> Any:
        result = stepped(self)
        events.append((tuple(result[2].tolist()), tuple(self.switched.tolist())))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "forward", spy)
        patch.setattr(streams.StreamVecEnv, "step_wait", watch)
        episodes = play_streams(agent, PROTOCOL)
    conditions = len(PROTOCOL.reset_conditions)
    return Watched(
        episodes,
        cleared,
        {condition: events[n::conditions] for n, condition in enumerate(PROTOCOL.reset_conditions)},
    )


def of(episodes: list[StreamEpisode], condition: str) -> list[StreamEpisode]:
    return [episode for episode in episodes if episode.reset_condition == condition]


def test_each_way_plays_its_stays(watched: Watched) -> None:
    episodes = watched.episodes
    for condition in PROTOCOL.reset_conditions:
        places = [(e.stream, e.task, e.index) for e in of(episodes, condition)]
        assert places == [(stream, 1, index) for stream in (0, 1) for index in (0, 1)]


def test_the_ways_meet_the_same_streams_and_differ(watched: Watched) -> None:
    episodes = watched.episodes
    games = {condition: [e.game for e in of(episodes, condition)] for condition in PROTOCOL.reset_conditions}
    assert len({tuple(names) for names in games.values()}) == 1
    lengths = {
        condition: tuple(e.length for e in of(episodes, condition)) for condition in PROTOCOL.reset_conditions
    }
    assert len(set(lengths.values())) == len(PROTOCOL.reset_conditions)


def test_scores_are_normalised(watched: Watched) -> None:
    for episode in watched.episodes:
        assert episode.normalized == pytest.approx(normalized_score(episode.game, "easy", episode.score))


def test_memories_are_cleared_when_they_should_be(watched: Watched) -> None:
    for condition, marks in watched.cleared.items():
        assert len(marks) > 50
        assert all(marks[0]), "nothing is remembered at the start"
        for t, (mark, (dones, switched)) in enumerate(
            zip(marks[1:], watched.events[condition], strict=False), 1
        ):
            expected = {
                "carried": (False, False),
                "switch": switched,
                "episode": dones,
                "7": (t % 7 == 0, t % 7 == 0),
            }[condition]
            assert mark == expected, (condition, t)
    assert any(any(mark) for mark in watched.cleared["switch"][1:])
    assert sum(map(sum, watched.cleared["switch"])) < sum(map(sum, watched.cleared["episode"]))


def test_the_protocol_alone_decides_and_the_agent_is_left_as_it_was(
    agent: IMPALA, make_agent: Callable[..., IMPALA]
) -> None:
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    torch.manual_seed(5)
    seen: list[Progress] = []
    episodes = play_streams(agent, SMALL, seen.append)
    assert (seen[-1].done, seen[-1].total) == (2, 2)
    torch.manual_seed(6)
    assert play_streams(agent, SMALL) == episodes
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.policy.state_dict().items())
    # The reset rule of training does not matter.
    assert play_streams(make_agent(reset="never"), SMALL) == episodes
    assert play_streams(agent, replace(SMALL, seed=1)) != episodes
    sampled = replace(SMALL, greedy=False)
    assert play_streams(agent, sampled) == play_streams(agent, sampled) != episodes


def episode(game: str, index: int, normalized: float, condition: str = "carried") -> StreamEpisode:
    return StreamEpisode(condition, 0, 1, index, game, 0.0, normalized, 1)


def test_a_curve_weighs_games_equally_and_ends_where_one_is_missing() -> None:
    episodes = [
        *(episode("maze", 0, value) for value in (0.0, 1.0, 0.5)),
        episode("heist", 0, 0.1),
        *(episode("maze", 1, 0.8), episode("heist", 1, 0.4), episode("maze", 2, 0.9)),
        episode("heist", 0, 9.0, condition="switch"),
    ]
    assert adaptation_curve(episodes, "carried", ("maze", "heist")) == pytest.approx([0.3, 0.6])


def test_json_keeps_everything(watched: Watched) -> None:
    assert from_json(to_json(PROTOCOL, watched.episodes)) == watched.episodes


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"games": ("maze",)}, "two games or more"),
        ({"games": ("maze", "mase")}, "unknown game 'mase'"),
        ({"task_duration": "long"}, "unknown task duration 'long'"),
        ({"split": "test9"}, "unknown levels 'test9'"),
        ({"reset_conditions": ("carried", "never")}, "unknown reset condition 'never'"),
        ({"reset_conditions": ("0",)}, "unknown reset condition '0'"),
        ({"reset_conditions": ()}, "no reset condition"),
        ({"streams": 0}, "streams is 0"),
        ({"tasks": 0}, "tasks is 0"),
    ],
)
def test_what_cannot_be_played(agent: IMPALA, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        play_streams(agent, replace(PROTOCOL, **changes))
