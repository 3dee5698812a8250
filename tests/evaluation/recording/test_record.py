"""Recordings of an agent at play: films of a stretch of time and of whole episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from agents import IMPALA, Actor
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation import Progress, Protocol, Recording, read_trace, record
from evaluation.recording.overlay import (
    PANEL,
    Grid,
    TilePainter,
)
from evaluation.recording.replay import play_candidates
from evaluation.recording.video import video_writer


def decode(path: Path) -> tuple[list[NDArray[np.uint8]], Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], facts


def distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_a_video_shows_what_a_replay_shows(agent: IMPALA, tmp_path: Path) -> None:
    games, frames = ["leaper", "chaser", "fruitbot"], 40
    reports: list[Progress] = []
    protocol = Protocol(tuple(games), splits=("test1",), seed=5)
    recording = Recording(str(tmp_path / "film.mp4"), frames / 15, trace=str(tmp_path / "play.npz"))
    record(agent, protocol, recording, report=reports.append)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["film.mp4", "play.npz"]
    trace = read_trace(tmp_path / "play.npz")[1]
    assert [(report.done, report.total) for report in reports] == [(t + 1, frames) for t in range(frames)]

    pictures, facts = decode(tmp_path / "film.mp4")
    painter = TilePainter(320)
    grid = Grid(3, painter.size)
    assert (grid.columns, grid.rows) == (2, 2)
    assert facts == ("h264", "yuv420p", 15)
    assert len(pictures) == frames
    assert {picture.shape for picture in pictures} == {(*reversed(grid.size), 3)}

    env = ProcgenVecEnv(games, 3, levels="test1", seed=5, render_mode="rgb_array")
    observation: Any = env.reset()
    state, start = None, np.ones(3, dtype=bool)
    returns, steps = np.zeros(3), np.zeros(3, dtype=int)
    actor = Actor(agent.policy, 3, agent.device, torch.Generator())
    for t in range(frames):
        assert trace["returns"][t].tolist() == returns.tolist()
        assert trace["steps"][t].tolist() == steps.tolist()
        assert trace["levels"][t].tolist() == env.current_levels
        values = actor.step(observation, start, deterministic=True).values
        np.testing.assert_allclose(trace["values"][t], values, rtol=1e-5, atol=1e-6)
        actions, state = agent.predict(observation, state, start, deterministic=True)
        assert trace["actions"][t].tolist() == actions.tolist()
        for number, plain in enumerate(env.get_images()):
            assert plain is not None
            left, top = grid.position(number)
            size = painter.frame_size
            small = np.asarray(Image.fromarray(plain).resize((size, size)))
            film = pictures[t][top + painter.header :, left:][:size, :size]
            assert distance(film, small) < 6
            for strip in (
                pictures[t][top : top + painter.header, left : left + size],
                pictures[t][top + painter.header + size :, left:][: painter.footer, :size],
            ):
                written = np.abs(strip.astype(int) - PANEL).max(-1) > 60
                assert 0.01 < written.mean() < 0.5
        observation, rewards, start, _ = env.step(actions)
        returns, steps = (returns + rewards) * ~start, (steps + 1) * ~start
    env.close()
    assert trace["returns"].any()
    assert (trace["steps"][1:] == 0).any()  # an episode has ended


def test_the_reset_rule_can_be_changed(agent: IMPALA, tmp_path: Path) -> None:
    recording = Recording(video_seconds=8 / 15, trace=str(tmp_path / "play.npz"))
    values = []
    for reset in (None, "episode", "4"):
        record(agent, Protocol(("chaser",), splits=("test1",), reset=reset), recording)
        values.append(read_trace(tmp_path / "play.npz")[1]["values"])
    assert values[0].tolist() == values[1].tolist()
    assert (values[0] == values[2]).ravel().tolist()[:4] == [True] * 4
    assert values[0][4] != values[2][4]


def test_bad_requests_name_what_is_wrong(agent: IMPALA, tmp_path: Path) -> None:
    film = str(tmp_path / "film.mp4")
    with pytest.raises(UserError, match=r"unknown game 'mzae'.*video_seconds is 0"):
        record(agent, Protocol(("mzae",)), Recording(film, video_seconds=0.0))
    with pytest.raises(OSError, match=r"film\.mp4"):
        record(agent, Protocol(("maze",)), Recording(str(tmp_path / "missing" / "film.mp4"), 0.1))
    assert list(tmp_path.iterdir()) == []


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_whole_episodes_are_shown_as_they_were_played(agent: IMPALA, tmp_path: Path) -> None:
    games = ("starpilot", "fruitbot")
    protocol = Protocol(games, splits=("40:60",), seed=3)
    recording = Recording(
        str(tmp_path / "film.mp4"),
        video_overlay="full",
        video_per_game=True,
        video_episodes=("best", "worst"),
        video_candidates=3,
        trace=str(tmp_path / "play.npz"),
    )
    record(agent, protocol, recording)
    trace = read_trace(tmp_path / "play.npz")[1]
    played = {game: play_candidates(agent.policy, game, 3, protocol) for game in games}
    scores = {game: sorted(replay.score for replay in replays) for game, replays in played.items()}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("film-fruitbot.mp4", "film-starpilot.mp4", "play.npz")
    ]
    lengths = []
    for env, (which, game) in enumerate((which, game) for which in (-1, 0) for game in games):
        playing = trace["active"][:, env]
        lengths.append(int(playing.sum()))
        assert playing[: lengths[-1]].all()
        assert trace["ended"][:, env].tolist() == [t == lengths[-1] - 1 for t in range(len(playing))]
        assert trace["rewards"][playing, env].sum() == pytest.approx(scores[game][which])
        assert trace["steps"][playing, env].tolist() == list(range(lengths[-1]))
        assert 40 <= trace["levels"][0, env] < 60
        assert len(set(trace["levels"][:, env])) == 1
        # An episode that is over stays as it was at its last step.
        assert len(set(trace["values"][lengths[-1] - 1 :, env])) == 1
    assert len(set(lengths)) > 1
    for game in games:
        assert len(frames_of(tmp_path / f"film-{game}.mp4")) == max(lengths) == len(trace["values"])


def test_impossible_films_are_refused(agent: IMPALA, tmp_path: Path) -> None:
    recording = Recording(
        str(tmp_path / "film.mp4"),
        video_overlay="ful",
        video_episodes=("bets", "worst", "worst"),
        video_candidates=0,
        video_head=-1,
    )
    with pytest.raises(
        UserError, match=r"did you mean full.*did you mean best.*candidates is 0.*head is -1.*once"
    ):
        record(agent, Protocol(("maze",)), recording)
    with (
        pytest.raises(ValueError, match=r"film\.avi is not a film"),
        video_writer(tmp_path / "film.avi", 2, 2, 15),
    ):
        pass
