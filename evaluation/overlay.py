"""Pictures of agents at play: a tile for each game, with what the agent thinks and does around its frame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (15, 17, 21)
PANEL = (24, 27, 33)
BRIGHT = (240, 242, 245)
DIM = (139, 147, 158)
ACCENT = (255, 200, 87)
KEY = (45, 50, 60)
KEY_LABEL = (110, 118, 130)
GAP = 6
"""Pixels between tiles and around them."""

# The keys of ProcGen's action space, in columns and rows of key widths: arrows and letters as on a keyboard.
_LETTERS = {"Q": (0, 0), "W": (1, 0), "E": (2, 0), "A": (0, 1), "S": (1, 1), "D": (2, 1)}
_ARROWS = {"UP": (4.4, 0), "LEFT": (3.4, 1), "DOWN": (4.4, 1), "RIGHT": (5.4, 1)}
_KEYS_WIDE, _KEYS_HIGH = 6.4, 2
_POINTS = {"UP": (0, -1), "DOWN": (0, 1), "LEFT": (-1, 0), "RIGHT": (1, 0)}


@dataclass(frozen=True)
class Caption:
    """What is written around one frame.

    Attributes:
        game: name of the game.
        place: which level is played.
        episode_return: so far.
        last_return: of the episode before; None in the first.
        just_ended: whether that one ended a moment ago.
        step: of the episode.
        value: the policy's estimate.
        keys: that the agent presses now, as `envs.BUTTON_COMBOS` names them.
    """

    game: str
    place: str
    episode_return: float
    last_return: float | None
    just_ended: bool
    step: int
    value: float
    keys: Collection[str]


class TilePainter:
    """Paints tiles whose frames are `frame_size` pixels wide and high."""

    def __init__(self, frame_size: int) -> None:
        self.frame_size = frame_size
        self._unit = frame_size / 320
        self.header = self._px(26)
        self.footer = self._px(48)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a tile."""
        return self.frame_size, self.header + self.frame_size + self.footer

    def _px(self, length: float) -> int:
        """A length at 320 pixels as one at this size, rounded to an even number."""
        return 2 * round(length * self._unit / 2)

    @cached_property
    def _title_font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(16 * self._unit)

    @cached_property
    def _font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(13.5 * self._unit)

    @cached_property
    def _key_font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(11 * self._unit)

    def paint(self, frame: NDArray[np.uint8], caption: Caption) -> Image.Image:
        """A tile with a frame (any height and width, 3) between two strips of text."""
        tile = Image.new("RGB", self.size, PANEL)
        picture = Image.fromarray(frame)
        if picture.size != (self.frame_size, self.frame_size):
            picture = picture.resize((self.frame_size, self.frame_size), Image.Resampling.HAMMING)
        tile.paste(picture, (0, self.header))
        draw = ImageDraw.Draw(tile)
        middle, edge = self.header / 2, self._px(8)
        draw.text((edge, middle), caption.game, BRIGHT, self._title_font, anchor="lm")
        draw.text((self.frame_size - edge, middle), caption.place, DIM, self._font, anchor="rm")
        self._numbers(draw, caption)
        self._keys(draw, caption.keys)
        return tile

    def _numbers(self, draw: ImageDraw.ImageDraw, caption: Caption) -> None:
        last = "-" if caption.last_return is None else _number(caption.last_return)
        columns = (
            (8, 92, (("return", _number(caption.episode_return)), ("value", f"{caption.value:.2f}"))),
            (106, 178, (("last", last), ("step", str(caption.step)))),
        )
        top = self.header + self.frame_size
        for left, right, fields in columns:
            for row, (label, value) in enumerate(fields):
                y = top + self.footer * (0.3 + 0.42 * row)
                colour = ACCENT if label == "last" and caption.just_ended else BRIGHT
                draw.text((self._px(left), y), label, DIM, self._font, anchor="lm")
                draw.text((self._px(right), y), value, colour, self._font, anchor="rm")

    def _keys(self, draw: ImageDraw.ImageDraw, pressed: Collection[str]) -> None:
        pitch = self._px(18)
        left = self.frame_size - self._px(8) - pitch * _KEYS_WIDE
        top = self.header + self.frame_size + (self.footer - pitch * _KEYS_HIGH) / 2
        size = pitch - max(2, self._px(2))
        for key, (column, row) in {**_LETTERS, **_ARROWS}.items():
            x, y = left + column * pitch, top + row * pitch
            lit = key in pressed
            draw.rounded_rectangle((x, y, x + size, y + size), size / 5, ACCENT if lit else KEY)
            colour = BACKGROUND if lit else KEY_LABEL
            centre = (x + size / 2, y + size / 2)
            if key in _POINTS:
                draw.polygon(_arrow(centre, size / 4, _POINTS[key]), colour)
            else:
                draw.text(centre, key, colour, self._key_font, anchor="mm")


def _arrow(
    centre: tuple[float, float], reach: float, direction: tuple[int, int]
) -> list[tuple[float, float]]:
    """A triangle that points to `direction`."""
    (x, y), (dx, dy) = centre, direction
    return [
        (x + reach * dx, y + reach * dy),
        (x - reach * dx + reach * dy, y - reach * dy + reach * dx),
        (x - reach * dx - reach * dy, y - reach * dy - reach * dx),
    ]


def _number(value: float) -> str:
    """With decimals only where there are any: most returns are whole numbers."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


class Grid:
    """Tiles in rows and columns, as near to a square as they go; the picture's sizes are even."""

    def __init__(self, tiles: int, tile_size: tuple[int, int]) -> None:
        self.columns = math.ceil(math.sqrt(tiles))
        self.rows = math.ceil(tiles / self.columns)
        self._tile_width, self._tile_height = tile_size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        width = GAP + self.columns * (self._tile_width + GAP)
        height = GAP + self.rows * (self._tile_height + GAP)
        return width, height

    def position(self, index: int) -> tuple[int, int]:
        """Left and upper edge of a tile."""
        row, column = divmod(index, self.columns)
        return GAP + column * (self._tile_width + GAP), GAP + row * (self._tile_height + GAP)

    def compose(self, tiles: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """The picture (height, width, 3)."""
        picture = Image.new("RGB", self.size, BACKGROUND)
        for index, tile in enumerate(tiles):
            picture.paste(tile, self.position(index))
        return np.asarray(picture)


def frame_size_for(tiles: int) -> int:
    """How large the frames are for so many games: all of them shall fit on a screen."""
    if tiles == 1:
        return 512
    return 320 if tiles <= 6 else 256
