"""Pictures of agents at play: a tile for each game, with what the agent thinks and does around its frame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.native import ACTION_NAMES

BACKGROUND = (15, 17, 21)
PANEL = (24, 27, 33)
BRIGHT = (240, 242, 245)
DIM = (139, 147, 158)
ACCENT = (255, 200, 87)
KEY = (45, 50, 60)
KEY_LABEL = (110, 118, 130)
VALUE = (109, 179, 255)
GAIN = (82, 210, 155)
LOSS = (255, 123, 128)
LAYER_COLOURS = ((183, 155, 255), (255, 164, 92), (86, 212, 220), (255, 138, 196))
POSITIVE, ZERO, NEGATIVE = (255, 154, 92), (20, 22, 27), (99, 164, 255)
GAP = 6
"""Pixels between tiles and around them."""

STYLES = ("plain", "scores", "full")
"""What is painted: the frames alone, with return, value and keys around them, or with the policy's panel."""
HISTORY = 120
"""Steps that the curves of the full style show."""

# The keys of ProcGen's action space, in columns and rows of key widths: arrows and letters as on a keyboard.
_LETTERS = {"Q": (0, 0), "W": (1, 0), "E": (2, 0), "A": (0, 1), "S": (1, 1), "D": (2, 1)}
_ARROWS = {"UP": (4.4, 0), "LEFT": (3.4, 1), "DOWN": (4.4, 1), "RIGHT": (5.4, 1)}
_KEYS_WIDE, _KEYS_HIGH = 6.4, 2
_ROTATIONS = {"UP": 0, "LEFT": 90, "DOWN": 180, "RIGHT": 270}


TITLE, TEXT, LETTER = 16, 13.5, 11
"""Sizes of fonts, beside frames of 320 pixels."""

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge."""
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Caption:
    """What is written around one frame.

    Attributes:
        place: Which level is played.
        episode_return: The return of the episode so far.
        last_return: The return of the episode before; None in the first.
        just_ended: Whether that one has only just ended.
        keys: The keys that the agent presses, as `envs.BUTTON_COMBOS` names them.
        ended: Whether the episode is over, and this its last frame.
    """

    game: str
    place: str
    episode_return: float
    last_return: float | None
    just_ended: bool
    step: int
    value: float
    keys: Collection[str]
    ended: bool = False


@dataclass(frozen=True)
class PolicyPanel:
    """What the full style shows of the policy.

    Attributes:
        values, rewards, starts: The value, the reward and whether an episode begins at each of the latest steps,
            oldest first; the last is the present one.
        probabilities: The probability of each action now; `action` was chosen.
        norms: How far each layer's weights have moved, at each of the latest steps.
        shares: Share of each layer's output that it owes to what it has written, at each of the latest steps.
        rates: The self-generated rates of each layer now.
        weights: W_t - W_0 of one head (rows, columns) now; None if nothing modifies itself.
        weights_name: Which weights these are.
    """

    values: Sequence[float]
    rewards: Sequence[float]
    starts: Sequence[bool]
    probabilities: Sequence[float]
    action: int
    norms: Sequence[Sequence[float]] = ()
    shares: Sequence[Sequence[float]] = ()
    rates: Sequence[Sequence[float]] = ()
    weights: NDArray[np.float32] | None = None
    weights_name: str = ""


@cache
def _load_font(size: float) -> Font:
    return ImageFont.load_default(size)


class TilePainter:
    """Paints tiles whose frames are `frame_size` pixels wide and high, in one of `STYLES`."""

    def __init__(self, frame_size: int, style: str = "scores") -> None:
        self.frame_size, self._style = frame_size, style
        self._unit = frame_size / 320
        self._keyboards: dict[frozenset[str], Image.Image] = {}
        framed = style != "plain"
        self.header = self._px(26) if framed else 0
        self.footer = self._px(48) if framed else 0
        self.panel = self._px(230) if style == "full" else 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a tile."""
        return self.frame_size + self.panel, self.header + self.frame_size + self.footer

    def _px(self, length: float) -> int:
        """A length at 320 pixels as one at this size, rounded to an even number."""
        return 2 * round(length * self._unit / 2)

    def paint(
        self, frame: NDArray[np.uint8], caption: Caption, panel: PolicyPanel | None = None
    ) -> Image.Image:
        """A tile with a frame (any height and width, 3), between two strips of text unless the style is plain.

        Args:
            frame: what the game shows.
            caption: what is written around it.
            panel: what stands beside it in the full style.
        """
        tile = Image.new("RGB", self.size, PANEL)
        picture = Image.fromarray(frame)
        if picture.size != (self.frame_size, self.frame_size):
            picture = picture.resize((self.frame_size, self.frame_size), Image.Resampling.HAMMING)
        if caption.ended:
            picture = Image.blend(picture, Image.new("RGB", picture.size, BACKGROUND), 0.55)
        tile.paste(picture, (0, self.header))
        if self._style == "plain":
            return tile
        draw = ImageDraw.Draw(tile)
        middle, edge = self.header / 2, self._px(8)
        self._write(draw, (edge, middle), caption.game, BRIGHT, TITLE, "lm")
        self._write(draw, (self.frame_size - edge, middle), caption.place, DIM, TEXT, "rm")
        self._numbers(draw, caption)
        self._paste_keys(tile, caption.keys)
        if self._style == "full" and panel is not None:
            self._paint_panel(tile, draw, panel)
        return tile

    def _paint_panel(self, tile: Image.Image, draw: ImageDraw.ImageDraw, panel: PolicyPanel) -> None:
        """Curves, bars and the heat map, from top to bottom."""
        left, right = self.frame_size + self._px(10), self.frame_size + self.panel - self._px(8)
        bottom = 0

        def section(label: str, number: str, height: int) -> Box:
            """The place of the next drawing, below a line of text."""
            nonlocal bottom
            gap, line = self._px(2), self._px(18)
            middle = bottom + gap + line / 2
            self._write(draw, (left, middle), label, DIM, TEXT, "lm")
            self._write(draw, (right, middle), number, BRIGHT, TEXT, "rm")
            top = bottom + gap + line
            bottom = top + height
            return left, top, right, bottom

        reward = _number(panel.rewards[-1])
        box = section(f"value {panel.values[-1]:.2f}", f"reward {reward}", self._px(62))
        _bars(draw, box, panel.rewards)
        _curves(draw, box, [panel.values], [VALUE], panel.starts)
        box = section(f"action {ACTION_NAMES[panel.action]}", "", self._px(44))
        lit = [ACCENT if index == panel.action else KEY_LABEL for index in range(len(panel.probabilities))]
        _columns(draw, box, panel.probabilities, lit)
        if panel.norms:
            now = "  ".join(f"{norm[-1]:.2f}" for norm in panel.norms)
            box = section("|W - W0|", now, self._px(40))
            _curves(draw, box, panel.norms, LAYER_COLOURS, panel.starts, zero=True)
        if panel.shares:
            now = "  ".join(f"{share[-1]:.2f}" for share in panel.shares)
            box = section("of the output", now, self._px(22))
            _curves(draw, box, panel.shares, LAYER_COLOURS, panel.starts, zero=True)
        if panel.rates:
            box = section("rates", "", self._px(30))
            layers = zip(panel.rates, cycle(LAYER_COLOURS), strict=False)
            rates = [(rate, colour) for layer, colour in layers for rate in layer]
            _columns(draw, box, [rate for rate, _ in rates], [colour for _, colour in rates])
        if panel.weights is not None:
            scale = float(np.abs(panel.weights).max())
            _, top, _, _ = section(panel.weights_name, f"±{scale:.2g}", 0)
            height = self.size[1] - self._px(6) - top
            if height > 0:
                picture = heat_map(panel.weights, scale)
                tile.paste(picture.resize((right - left, height), Image.Resampling.NEAREST), (left, top))

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
                self._write(draw, (self._px(left), y), label, DIM, TEXT, "lm")
                self._write(draw, (self._px(right), y), value, colour, TEXT, "rm")

    def _paste_keys(self, tile: Image.Image, pressed: Collection[str]) -> None:
        keys = self._keyboard(frozenset(pressed))
        left = self.frame_size - self._px(8) - keys.width
        tile.paste(keys, (left, self.header + self.frame_size + (self.footer - keys.height) // 2))

    def _keyboard(self, pressed: frozenset[str]) -> Image.Image:
        """The keys, some of them lit; there are few such pictures, so each is drawn once."""
        if pressed not in self._keyboards:
            pitch = self._px(18)
            picture = Image.new("RGB", (math.ceil(pitch * _KEYS_WIDE), pitch * _KEYS_HIGH), PANEL)
            draw = ImageDraw.Draw(picture)
            for key, (column, row) in {**_LETTERS, **_ARROWS}.items():
                self._draw_key(draw, key, column * pitch, row * pitch, key in pressed)
            self._keyboards[pressed] = picture
        return self._keyboards[pressed]

    def _draw_key(self, draw: ImageDraw.ImageDraw, key: str, x: float, y: float, lit: bool) -> None:
        size = self._px(18) - max(2, self._px(2))
        draw.rounded_rectangle((x, y, x + size, y + size), size / 5, ACCENT if lit else KEY)
        colour = BACKGROUND if lit else KEY_LABEL
        centre = (x + size / 2, y + size / 2)
        if key in _ARROWS:
            draw.regular_polygon((centre, size / 3), 3, _ROTATIONS[key], colour)
        else:
            self._write(draw, centre, key, colour, LETTER, "mm")

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        colour: Colour,
        size: float,
        anchor: str,
    ) -> None:
        """Text whose anchor point (as Pillow names it) is at `place`."""
        if not text:
            return
        (left, top), mask = _text_mask(text, size * self._unit, anchor)
        draw.bitmap((round(place[0]) + left, round(place[1]) + top), mask, colour)


@lru_cache(maxsize=4096)
def _text_mask(text: str, size: float, anchor: str) -> tuple[tuple[int, int], Image.Image]:
    """A text as a mask, and where it lies relative to its anchor point. Most texts of a film are shown many times, and
    to draw the letters anew takes longer than anything else in a frame."""
    font = _load_font(size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor=anchor))
    mask = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, 255, font, anchor=anchor)
    return (left - 1, top - 1), mask


def _curves(
    draw: ImageDraw.ImageDraw,
    box: Box,
    curves: Sequence[Sequence[float]],
    colours: Sequence[Colour],
    starts: Sequence[bool],
    zero: bool = False,
) -> None:
    """Lines over the latest steps, cut where episodes start."""
    left, top, right, bottom = box
    pitch = (right - left) / HISTORY
    marks = [left + pitch * (index + 0.5) for index, start in enumerate(starts) if start]
    for x in marks:
        draw.line((x, top, x, bottom), KEY)
    values = [value for curve in curves for value in curve] + ([0.0] if zero else [])
    low, high = min(values), max(values)
    span = high - low or 1.0
    for index, curve in enumerate(curves):
        points: list[tuple[float, float]] = []
        for step, value in enumerate(curve):
            if starts[step] and points:
                draw.line(points, colours[index % len(colours)], 2)
                points = []
            points.append(
                (left + pitch * (step + 0.5), bottom - 2 - (value - low) / span * (bottom - top - 4))
            )
        if len(points) > 1:
            draw.line(points, colours[index % len(colours)], 2)


def _bars(draw: ImageDraw.ImageDraw, box: Box, values: Sequence[float]) -> None:
    """Bars over the latest steps, as long as their values are large."""
    left, top, right, bottom = box
    pitch = (right - left) / HISTORY
    largest = max(map(abs, values), default=0.0)
    for step, value in enumerate(values):
        if value:
            x = left + pitch * step
            height = max(2.0, abs(value) / largest * 0.5 * (bottom - top))
            draw.rectangle((x, bottom - height, x + max(1.0, pitch), bottom), GAIN if value > 0 else LOSS)


def _columns(draw: ImageDraw.ImageDraw, box: Box, values: Sequence[float], colours: Sequence[Colour]) -> None:
    """Bars from 0 to 1, side by side."""
    left, top, right, bottom = box
    pitch = (right - left) / len(values)
    for index, (value, colour) in enumerate(zip(values, colours, strict=True)):
        x = left + pitch * index
        draw.rectangle((x, top, x + pitch - 3, bottom), KEY)
        if value > 0:
            draw.rectangle((x, bottom - min(1.0, value) * (bottom - top), x + pitch - 3, bottom), colour)


def heat_map(matrix: NDArray[np.float32], scale: float) -> Image.Image:
    """A matrix as a picture with one pixel for each entry; `scale` is the magnitude of the strongest colours."""
    share = np.clip(matrix / scale, -1, 1) if scale > 0 else np.zeros_like(matrix)
    # A root makes small changes visible.
    weight = np.sqrt(np.abs(share))[..., None]
    ends = np.where(share[..., None] < 0, np.array(NEGATIVE), np.array(POSITIVE))
    return Image.fromarray((np.array(ZERO) * (1 - weight) + ends * weight).round().astype(np.uint8))


def _number(value: float) -> str:
    """With decimals only where there are any: most returns are whole numbers."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


class Grid:
    """Tiles in rows and columns, as near to a square as they go; the picture's sizes are even."""

    def __init__(self, tiles: int, tile_size: tuple[int, int]) -> None:
        self.columns = math.ceil(math.sqrt(tiles))
        self.rows = math.ceil(tiles / self.columns)
        self._pitch = tile_size[0] + GAP, tile_size[1] + GAP

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return GAP + self.columns * self._pitch[0], GAP + self.rows * self._pitch[1]

    def position(self, index: int) -> tuple[int, int]:
        """Left and upper edge of a tile."""
        row, column = divmod(index, self.columns)
        return GAP + column * self._pitch[0], GAP + row * self._pitch[1]

    def compose(self, tiles: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """The picture (height, width, 3)."""
        picture = Image.new("RGB", self.size, BACKGROUND)
        for index, tile in enumerate(tiles):
            picture.paste(tile, self.position(index))
        return np.asarray(picture)


def frame_size_for(tiles: int) -> int:
    """How large the frames are for so many games: all of them fit on a screen."""
    if tiles == 1:
        return 512
    return 320 if tiles <= 6 else 256
