from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from agents import IMPALA
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation import Progress, Protocol, Recording, record
from evaluation.recording.overlay import ACCENT, GAP, KEY, PANEL, Caption, Grid, TilePainter
from evaluation.recording.video import VideoWriter


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
    recording = Recording(str(tmp_path / "film.mp4"), video_seconds=frames / 15)
    trace = record(agent, protocol, recording, report=reports.append)
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
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
    actor = agent.actor(3)
    for t in range(frames):
        assert trace.returns[t].tolist() == returns.tolist()
        assert trace.steps[t].tolist() == steps.tolist()
        assert trace.levels[t].tolist() == env.current_levels
        values = actor.step(observation, start, deterministic=True).values
        np.testing.assert_allclose(trace.values[t], values, rtol=1e-5, atol=1e-6)
        actions, state = agent.predict(observation, state, start, deterministic=True)
        assert trace.actions[t].tolist() == actions.tolist()
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
    assert trace.returns.any()
    assert (trace.steps[1:] == 0).any()  # an episode has ended


def test_the_reset_rule_can_be_changed(agent: IMPALA, tmp_path: Path) -> None:
    recording = Recording(str(tmp_path / "film.mp4"), video_seconds=8 / 15)
    traces = [
        record(agent, Protocol(("chaser",), splits=("test1",), reset=reset), recording)
        for reset in (None, "episode", "4")
    ]
    assert traces[0].values.tolist() == traces[1].values.tolist()
    assert (traces[0].values == traces[2].values).ravel().tolist()[:4] == [True] * 4
    assert traces[0].values[4] != traces[2].values[4]


def test_bad_requests_name_what_is_wrong(agent: IMPALA, tmp_path: Path) -> None:
    film = str(tmp_path / "film.mp4")
    with pytest.raises(UserError, match=r"unknown game 'mzae'.*video_seconds is 0"):
        record(agent, Protocol(("mzae",)), Recording(film, video_seconds=0.0))
    with pytest.raises(OSError, match=r"film\.mp4"):
        record(agent, Protocol(("maze",)), Recording(str(tmp_path / "missing" / "film.mp4"), 0.1))
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with VideoWriter(path, 32, 32, 15) as video:
            video.write(np.zeros((32, 32, 3), dtype=np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    with pytest.raises(ValueError, match="even"):
        VideoWriter(path, 33, 32, 15)


def caption(**changes: Any) -> Caption:
    facts: dict[str, Any] = {
        "game": "maze",
        "place": "test1, level 1003",
        "episode_return": 3.0,
        "last_return": None,
        "just_ended": False,
        "step": 17,
        "value": 1.25,
        "keys": ("LEFT", "UP"),
    }
    return Caption(**{**facts, **changes})


@pytest.mark.parametrize("size", [256, 320, 512])
def test_a_tile_is_the_frame_between_two_strips(size: int) -> None:
    painter = TilePainter(size)
    assert painter.size[0] % 2 == painter.size[1] % 2 == 0
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    tile = np.asarray(painter.paint(frame, caption()))
    assert np.array_equal(tile[painter.header : painter.header + size], frame)


@pytest.mark.parametrize(
    ("change", "strip"),
    [
        ({"game": "heist"}, "header"),
        ({"place": "test1, level 1004"}, "header"),
        ({"episode_return": 4.0}, "footer"),
        ({"last_return": 4.0}, "footer"),
        ({"step": 18}, "footer"),
        ({"value": -1.25}, "footer"),
        ({"keys": ("D",)}, "footer"),
    ],
)
def test_each_fact_is_written_in_its_strip(change: dict[str, Any], strip: str) -> None:
    painter = TilePainter(320)
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    before, after = (np.asarray(painter.paint(frame, fact)) for fact in (caption(), caption(**change)))
    changed = np.flatnonzero((before != after).any((1, 2)))
    header = changed < painter.header
    footer = changed >= painter.header + 320
    assert len(changed)
    assert (header if strip == "header" else footer).all()


def test_pressed_keys_light_up() -> None:
    painter = TilePainter(320)
    frame = np.zeros((64, 64, 3), dtype=np.uint8)

    def count(colour: tuple[int, int, int], *keys: str) -> int:
        tile = np.asarray(painter.paint(frame, caption(keys=keys)))
        return int((tile == colour).all(-1).sum())

    none, one, two = count(ACCENT), count(ACCENT, "D"), count(ACCENT, "LEFT", "UP")
    assert none == 0
    assert 0 < one < two
    assert count(KEY) > count(KEY, "D") > count(KEY, "LEFT", "UP")


def test_grids_are_nearly_square() -> None:
    shapes = {
        tiles: (Grid(tiles, (10, 20)).columns, Grid(tiles, (10, 20)).rows) for tiles in (1, 2, 5, 6, 16)
    }
    assert shapes == {1: (1, 1), 2: (2, 1), 5: (3, 2), 6: (3, 2), 16: (4, 4)}
    grid = Grid(6, (10, 20))
    assert grid.size == (3 * 10 + 4 * GAP, 2 * 20 + 3 * GAP)
    tiles = [Image.new("RGB", (10, 20), (index, 0, 0)) for index in range(6)]
    picture = grid.compose(tiles)
    for index in range(6):
        left, top = grid.position(index)
        assert (picture[top : top + 20, left : left + 10, 0] == index).all()
