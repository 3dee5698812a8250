"""Pictures of games, rendered from their states when somebody wants to see them.

Rendering a game at full size takes several times as long as everything else that a step needs. So games are played
without it; a step keeps the state of the game instead, from which its picture can be taken at any time and any size.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.levels import Levels
from envs.native import NativeEnv
from evaluation.watch.history import FrameRecord

HALF, FULL = 256, 512
"""Height and width of pictures in pixels: for a tile of a grid, and at full render resolution."""

_QUALITY = {HALF: 85, FULL: 88}
_KEPT = 128
"""Pictures that are kept for other viewers of the same moment."""


class Camera:
    """Takes pictures of some games. Not safe for threads, but independent of the environments in which they are played.

    Args:
        games: names, in the order of their indices.
        mode: of the games, a native one.
        render: whether to render; otherwise all pictures show the pixels that the policy sees.
    """

    def __init__(self, games: Sequence[str], mode: str, render: bool = True) -> None:
        self._games, self._mode, self._render = tuple(games), mode, render
        # A native instance renders all of its games at once, so there is one for each.
        self._stages: dict[int, NativeEnv] = {}
        self._pictures: OrderedDict[tuple[FrameRecord, int], bytes] = OrderedDict()

    def frame(self, game: int, record: FrameRecord) -> NDArray[np.uint8]:
        """A game at full size (512, 512, 3); what the policy sees (64, 64, 3) where nothing is rendered."""
        if not self._render:
            return record.rgb
        if game not in self._stages:
            # The levels do not matter: those that a game draws from are part of its state.
            self._stages[game] = NativeEnv(
                [self._games[game]], 1, self._mode, Levels("0", 0, 1), seed=0, num_threads=0, render=True
            )
        stage = self._stages[game]
        stage.set_state(0, record.native.tobytes())
        stage.observe()
        assert stage.frames is not None
        frame: NDArray[np.uint8] = stage.frames[0]
        return frame

    def picture(self, game: int, record: FrameRecord, size: int) -> bytes:
        """A game at `size` pixels (`HALF` or `FULL`) as a JPEG, or what the policy sees as a PNG."""
        if not self._render:
            return record.eye()
        key = (record, size)
        if key not in self._pictures:
            image = Image.fromarray(self.frame(game, record))
            if size == HALF:
                image = image.reduce(FULL // HALF)
            self._pictures[key] = compressed(image, "JPEG", quality=_QUALITY[size])
            if len(self._pictures) > _KEPT:
                self._pictures.popitem(last=False)
        return self._pictures[key]

    def close(self) -> None:
        """Free the native instances."""
        for stage in self._stages.values():
            stage.close()
        self._stages.clear()
        self._pictures.clear()


def compressed(image: Image.Image, kind: str, **options: int) -> bytes:
    """An image as a file of some kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
