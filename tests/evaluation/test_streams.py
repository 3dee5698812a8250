"""Scores in a stream of games, by episodes since the switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from agents import IMPALA, Actor
from common.errors import UserError
from envs import normalized_score
from evaluation import adaptation
from evaluation.adaptation import (
    StreamEpisode,
    StreamProtocol,
    adaptation_curve,
    from_json,
    play_streams,
    to_json,
)

PROTOCOL = StreamProtocol(
    ("chaser", "leaper"),
    split="0:12",
    stay="2 episodes",
    streams=2,
    stays=1,
    ways=("carried", "switch", "episode", "7"),
)


SMALL = replace(PROTOCOL, stay="1 episode", stays=1, ways=("carried",))


@dataclass
class Watched:
    """One playing of `PROTOCOL`: its episodes, and what happened while all streams were played.

    Attributes:
        cleared: by way, for each step, which memories were cleared before it.
        events: by way, for each step, where episodes ended and where games were switched.
    """

    episodes: list[StreamEpisode]
    cleared: dict[str, list[tuple[bool, ...]]]
    events: dict[str, list[tuple[tuple[bool, ...], tuple[bool, ...]]]]


@pytest.fixture(scope="module")
def watched(agent: IMPALA) -> Watched:
    cleared: dict[str, list[tuple[bool, ...]]] = {way: [] for way in PROTOCOL.ways}
    events: list[Any] = []
    step, stepped = Actor.step, adaptation.StreamVecEnv.step_wait

    def spy(self: Actor, observation: Any, episode_start: Any, deterministic: bool = False) -> Any:
        if len(episode_start) == 2 * len(PROTOCOL.ways):  # the rows of the first way come first, and so on
            for number, way in enumerate(PROTOCOL.ways):
                cleared[way].append(tuple(episode_start[2 * number : 2 * number + 2].tolist()))
        return step(self, observation, episode_start, deterministic)

    def watch(self: Any) -> Any:
        result = stepped(self)
        events.append((tuple(result[2].tolist()), tuple(self.switched.tolist())))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actor, "step", spy)
        patch.setattr(adaptation.StreamVecEnv, "step_wait", watch)
        episodes = play_streams(agent, PROTOCOL)
    ways = len(PROTOCOL.ways)
    return Watched(episodes, cleared, {way: events[n::ways] for n, way in enumerate(PROTOCOL.ways)})


def of(episodes: list[StreamEpisode], way: str) -> list[StreamEpisode]:
    return [episode for episode in episodes if episode.way == way]


def test_each_way_plays_its_stays(watched: Watched) -> None:
    episodes = watched.episodes
    for way in PROTOCOL.ways:
        places = [(e.stream, e.stay, e.index) for e in of(episodes, way)]
        assert places == [(stream, 1, index) for stream in (0, 1) for index in (0, 1)]


def test_the_ways_meet_the_same_streams_and_differ(watched: Watched) -> None:
    episodes = watched.episodes
    games = {way: [e.game for e in of(episodes, way)] for way in PROTOCOL.ways}
    assert len({tuple(names) for names in games.values()}) == 1
    lengths = {way: tuple(e.length for e in of(episodes, way)) for way in PROTOCOL.ways}
    assert len(set(lengths.values())) == len(PROTOCOL.ways)


def test_scores_are_normalised(watched: Watched) -> None:
    for episode in watched.episodes:
        assert episode.normalized == pytest.approx(normalized_score(episode.game, "easy", episode.score))


def test_memories_are_cleared_when_they_should_be(watched: Watched) -> None:
    for way, marks in watched.cleared.items():
        assert len(marks) > 50
        assert all(marks[0]), "nothing is remembered at the start"
        for t, (mark, (dones, switched)) in enumerate(zip(marks[1:], watched.events[way], strict=False), 1):
            expected = {
                "carried": (False, False),
                "switch": switched,
                "episode": dones,
                "7": (t % 7 == 0, t % 7 == 0),
            }[way]
            assert mark == expected, (way, t)
    assert any(any(mark) for mark in watched.cleared["switch"][1:])
    assert sum(map(sum, watched.cleared["switch"])) < sum(map(sum, watched.cleared["episode"]))


def test_the_protocol_alone_decides_and_the_agent_is_left_as_it_was(
    agent: IMPALA, make_agent: Callable[..., IMPALA]
) -> None:
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    torch.manual_seed(5)
    seen: list[tuple[int, int]] = []
    episodes = play_streams(agent, SMALL, lambda done, total, what: seen.append((done, total)))
    assert seen[-1] == (2, 2)
    torch.manual_seed(6)
    assert play_streams(agent, SMALL) == episodes
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.policy.state_dict().items())
    # The reset rule of training does not matter.
    assert play_streams(make_agent(reset="never"), SMALL) == episodes
    assert play_streams(agent, replace(SMALL, seed=1)) != episodes
    sampled = replace(SMALL, greedy=False)
    assert play_streams(agent, sampled) == play_streams(agent, sampled) != episodes


def episode(game: str, index: int, normalized: float, way: str = "carried") -> StreamEpisode:
    return StreamEpisode(way, 0, 1, index, game, 0.0, normalized, 1)


def test_a_curve_weighs_games_equally_and_ends_where_one_is_missing() -> None:
    episodes = [
        *(episode("maze", 0, value) for value in (0.0, 1.0, 0.5)),
        episode("heist", 0, 0.1),
        *(episode("maze", 1, 0.8), episode("heist", 1, 0.4), episode("maze", 2, 0.9)),
        episode("heist", 0, 9.0, way="switch"),
    ]
    assert adaptation_curve(episodes, "carried", ("maze", "heist")) == pytest.approx([0.3, 0.6])


def test_json_keeps_everything(watched: Watched) -> None:
    assert from_json(to_json(PROTOCOL, watched.episodes)) == watched.episodes


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"games": ("maze",)}, "two games or more"),
        ({"games": ("maze", "mase")}, "unknown game 'mase'"),
        ({"stay": "long"}, "unknown stay 'long'"),
        ({"split": "test9"}, "unknown levels 'test9'"),
        ({"ways": ("carried", "never")}, "unknown way of clearing 'never'"),
        ({"ways": ("0",)}, "unknown way of clearing '0'"),
        ({"ways": ()}, "no way of clearing"),
        ({"streams": 0}, "streams is 0"),
        ({"stays": 0}, "stays is 0"),
    ],
)
def test_what_cannot_be_played(agent: IMPALA, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        play_streams(agent, replace(PROTOCOL, **changes))
