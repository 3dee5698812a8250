"""What is painted on a frame and around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.recording.overlay import (
    ACCENT,
    GAP,
    KEY,
    LAYER_COLOURS,
    Caption,
    Grid,
    PolicyPanel,
    TilePainter,
    heat_map,
)


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


def panel_of(**changes: Any) -> PolicyPanel:
    facts: dict[str, Any] = {
        "values": [0.0, 1.0, 0.5],
        "rewards": [0.0, 0.0, 2.0],
        "starts": [True, False, False],
        "probabilities": [0.1] * 5 + [0.5] + [0.0] * 9,
        "action": 5,
        "norms": [[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]],
        "shares": [[0.0, 0.1, 0.3], [0.0, 0.5, 0.2]],
        "rates": [[0.5, 0.25], [0.75, 1.0]],
        "weights": np.array([[1.0, -1.0], [0.0, 0.5]], dtype=np.float32),
        "weights_name": "layer0",
    }
    return PolicyPanel(**{**facts, **changes})


def test_plain_shows_the_frame_and_nothing_else() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    painter = TilePainter(320, "plain")
    assert painter.size == (320, 320)
    assert np.array_equal(np.asarray(painter.paint(frame, caption())), frame)


def test_the_full_style_adds_a_panel_to_the_scores() -> None:
    frame = np.zeros((320, 320, 3), dtype=np.uint8)
    scores, full = TilePainter(320), TilePainter(320, "full")
    picture = np.asarray(full.paint(frame, caption(), panel_of()))
    assert np.array_equal(picture[:, :320], np.asarray(scores.paint(frame, caption())))
    assert picture.shape[1] == 320 + full.panel


@pytest.mark.parametrize(
    "change",
    [
        {"values": [0.0, 1.0, 0.9]},
        {"rewards": [0.0, 0.0, -2.0]},
        {"rewards": [0.0, 1.0, 2.0]},
        {"starts": [True, False, True]},
        {"probabilities": [0.1] * 5 + [0.4] + [0.0] * 8 + [0.1]},
        {"action": 3},
        {"norms": [[0.0, 1.0, 2.0], [0.0, 0.5, 1.5]]},
        {"shares": [[0.0, 0.1, 0.3], [0.0, 0.5, 0.6]]},
        {"rates": [[0.5, 0.25], [0.75, 0.8]]},
        {"weights": np.array([[1.0, -1.0], [0.0, -0.5]], dtype=np.float32)},
        {"weights_name": "layer1"},
    ],
)
def test_each_fact_of_the_panel_is_shown(change: dict[str, Any]) -> None:
    painter = TilePainter(320, "full")
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    before, after = (
        np.asarray(painter.paint(frame, caption(), facts)) for facts in (panel_of(), panel_of(**change))
    )
    changed = (before != after).any(-1)
    assert changed.any()
    assert not changed[:, :320].any()


def test_bars_are_as_long_as_the_probabilities() -> None:
    painter = TilePainter(320, "full")
    frame = np.zeros((64, 64, 3), dtype=np.uint8)

    def lit(probability: float, colour: tuple[int, int, int]) -> int:
        facts = panel_of(probabilities=[0.0] * 5 + [probability] + [0.0] * 9, rates=[[probability]])
        panel = np.asarray(painter.paint(frame, caption(keys=()), facts))[:, 320:]
        return int((panel == colour).all(-1).sum())

    for colour in (ACCENT, LAYER_COLOURS[0]):
        half, whole = lit(0.5, colour) - lit(0.0, colour), lit(1.0, colour) - lit(0.0, colour)
        assert whole / half == pytest.approx(2, rel=0.1)


def test_heat_maps_have_the_sign_and_order_of_the_matrix() -> None:
    picture = np.asarray(
        heat_map(np.array([[0.0, 1.0, 0.25], [-1.0, -0.25, 2.0]], dtype=np.float32), 1.0)
    ).astype(int)
    red, blue = picture[..., 0], picture[..., 2]
    assert red[0, 1] > red[0, 2] > red[0, 0]
    assert blue[1, 0] > blue[1, 1] > blue[0, 0]
    assert np.array_equal(picture[0, 1], picture[1, 2])


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
