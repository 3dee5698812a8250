"""Pictures that are taken from states are those of the game."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from envs import GAMES, ProcgenVecEnv
from evaluation.inspection import InspectedPlayer
from evaluation.watch.camera import FULL, HALF, Camera
from evaluation.watch.history import FrameRecord
from evaluation.watch.side import WatchedAgent


@pytest.mark.parametrize("games", [tuple(GAMES)[:8], tuple(GAMES)[8:]])
def test_pictures_are_those_of_the_game(games: tuple[str, ...], watch: Callable[..., WatchedAgent]) -> None:
    env = ProcgenVecEnv(games, len(games), levels="test1", num_threads=0, render_mode="rgb_array")
    player = InspectedPlayer(watch().agent.policy, env, greedy=False)
    camera = Camera(games, "easy")
    for step in range(6):
        moment, view = player.moment(), player.view()
        for game in range(len(games)):
            record = FrameRecord({}, view.rgb[game], moment.native(game), {})
            frame = view.frames[game]
            assert frame is not None
            assert np.array_equal(camera.frame(game, record), frame)
        player.collect()
        if step == 0:
            for size in (HALF, FULL):
                with Image.open(io.BytesIO(camera.picture(0, record_of(moment, view, 0), size))) as picture:
                    assert picture.size == (size, size)
                    small = np.asarray(Image.fromarray(view.frames[0]).reduce(FULL // size), dtype=float)
                    assert np.abs(np.asarray(picture, dtype=float) - small).mean() < 6
    camera.close()
    env.close()


def record_of(moment: object, view: object, game: int) -> FrameRecord:
    return FrameRecord({}, view.rgb[game], moment.native(game), {})  # type: ignore[attr-defined]


def test_without_rendering_there_is_what_the_policy_sees(watch: Callable[..., WatchedAgent]) -> None:
    env = ProcgenVecEnv(["maze"], 1, num_threads=0)
    player = InspectedPlayer(watch().agent.policy, env)
    record = record_of(player.moment(), player.view(), 0)
    camera = Camera(["maze"], "easy", render=False)
    assert camera.picture(0, record, FULL) == record.eye()
    assert np.array_equal(camera.frame(0, record), record.rgb)
    env.close()
