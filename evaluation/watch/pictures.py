"""Frames as compressed pictures."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HALF, FULL = 256, 512
"""Height and width of pictures in pixels: for a tile of a grid, and at full render resolution."""

_QUALITY = {HALF: 85, FULL: 88}


def jpeg(frame: NDArray[np.uint8], size: int) -> bytes:
    """A rendered frame (512, 512, 3), scaled down to `size` (`HALF` or `FULL`)."""
    picture = Image.fromarray(frame)
    if size == HALF:
        picture = picture.reduce(FULL // HALF)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY[size])
    return buffer.getvalue()


def png(image: NDArray[np.uint8]) -> bytes:
    """An image (height, width, 3) without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
