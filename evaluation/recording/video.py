"""Write frames to a film: mp4, webm or gif."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.files import atomic_write

# Codec and its options for each kind of file, which FFmpeg calls by its suffix. Qualities are near the visible limit:
# letters and sprites a few pixels wide stay sharp.
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".webm": (
        "libvpx-vp9",
        {"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"},
    ),
    ".gif": ("gif", {}),
}

SUFFIXES = tuple(_CODECS)
"""Kinds of files that can be written."""


@contextmanager
def video_writer(
    path: str | os.PathLike[str], width: int, height: int, frames_per_second: int
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Gives a function that adds a frame (height, width, 3), RGB, to a film.

    The film appears at `path`, whole or not at all, when the context is left without an error.

    Args:
        path: where it goes, ending in one of `SUFFIXES`; the directory must exist.
        width, height: of the frames in pixels, even numbers.
        frames_per_second: how fast it is played. In a gif it is rounded to hundredths of a second per frame.

    Raises:
        ValueError: the size is odd, which the usual colour format (yuv420p) cannot have, or an unknown kind of file.
        OSError: the file cannot be written.
    """
    if width % 2 or height % 2:
        raise ValueError(f"video frames must have even sizes, not {width} x {height}")
    suffix = Path(path).suffix.lower()
    if suffix not in _CODECS:
        raise ValueError(f"{path} is not a film: use {', '.join(SUFFIXES)}")
    codec, options = _CODECS[suffix]
    # The index goes first, so that browsers can play the file while they load it.
    layout = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    with (
        atomic_write(Path(path), "wb", durable=False) as file,
        av.open(file.name, "w", format=suffix[1:], options=layout) as container,
    ):
        stream = container.add_stream(codec, frames_per_second, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = "pal8" if suffix == ".gif" else "yuv420p"

        def write(frame: NDArray[np.uint8]) -> None:
            if suffix == ".gif":
                # The library takes pixels and colours as a pair, though its types do not say so.
                picture = av.VideoFrame.from_ndarray(_with_palette(frame), format="pal8")  # type: ignore[arg-type]
            else:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))

        yield write
        container.mux(stream.encode(None))


def animation_of(path: str | os.PathLike[str], width: int) -> tuple[bytes, int, int]:
    """Every other frame of a film as a small gif, at most `width` pixels wide: its bytes, width and height."""
    with tempfile.TemporaryDirectory() as folder, av.open(str(path)) as film:
        stream = film.streams.video[0]
        scale = min(1.0, width / stream.width)
        size = (2 * max(1, round(stream.width * scale / 2)), 2 * max(1, round(stream.height * scale / 2)))
        target = Path(folder) / "animation.gif"
        rate = max(1, round(float(stream.average_rate or 2) / 2))
        with video_writer(target, *size, rate) as write:
            for frame in islice(film.decode(stream), 0, None, 2):
                write(np.asarray(frame.to_image().resize(size, Image.Resampling.BILINEAR)))
        return target.read_bytes(), *size


def _with_palette(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame as indices (height, width) into 256 colours of its own (256, 4), opacity first."""
    picture = Image.fromarray(frame).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = np.frombuffer(bytes(picture.getpalette("RGB") or []), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    return np.asarray(picture), palette
