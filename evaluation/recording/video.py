"""Write frames to a film: mp4, webm or gif."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.files import partial_path


@dataclass(frozen=True)
class _Format:
    """How one kind of file is written.

    Attributes:
        container, codec, pixels: their names in FFmpeg.
        container_options, options: of container and codec.
    """

    container: str
    codec: str
    pixels: str = "yuv420p"
    container_options: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


# Qualities near the visible limit: letters and sprites a few pixels wide stay sharp.
_FORMATS = {
    # The index goes first, so that browsers can play the file while they load it.
    ".mp4": _Format(
        "mp4",
        "libx264",
        container_options={"movflags": "+faststart"},
        options={"crf": "18", "preset": "veryfast"},
    ),
    ".webm": _Format(
        "webm",
        "libvpx-vp9",
        options={"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"},
    ),
    ".gif": _Format("gif", "gif", "pal8"),
}

SUFFIXES = tuple(_FORMATS)
"""Kinds of files that can be written."""


class VideoWriter:
    """A film that appears at `path`, whole or not at all, when the context is left without an error.

    Args:
        path: where it goes, ending in one of `SUFFIXES`; the directory must exist.
        width, height: of the frames in pixels, even numbers.
        frames_per_second: how fast it is played. In a gif it is rounded to hundredths of a second per frame.

    Raises:
        ValueError: the size is odd, which the usual colour format (yuv420p) cannot have, or an unknown kind of file.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], width: int, height: int, frames_per_second: int) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"video frames must have even sizes, not {width} x {height}")
        self._path = Path(path)
        if self._path.suffix.lower() not in _FORMATS:
            raise ValueError(f"{path} is not a film: use {', '.join(SUFFIXES)}")
        form = _FORMATS[self._path.suffix.lower()]
        self._partial = partial_path(self._path)
        self._partial.touch()  # its error names the file, those of the library do not
        self._container = av.open(
            str(self._partial), "w", format=form.container, options=dict(form.container_options)
        )
        stream = self._container.add_stream(form.codec, frames_per_second, options=dict(form.options))
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = form.pixels

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame (height, width, 3), RGB."""
        if self._stream.pix_fmt == "pal8":
            # The library takes pixels and colours as a pair, though its types do not say so.
            picture = av.VideoFrame.from_ndarray(_with_palette(frame), format="pal8")  # type: ignore[arg-type]
        else:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)


def animation_of(path: str | os.PathLike[str], width: int, every: int = 2) -> tuple[bytes, int, int]:
    """A film as a small gif: its bytes, width and height.

    Args:
        path: of the film.
        width: at most so many pixels.
        every: of so many frames, one is kept.
    """
    with tempfile.TemporaryDirectory() as folder, av.open(str(path)) as film:
        stream = film.streams.video[0]
        scale = min(1.0, width / stream.width)
        size = (2 * max(1, round(stream.width * scale / 2)), 2 * max(1, round(stream.height * scale / 2)))
        target = Path(folder) / "animation.gif"
        rate = max(1, round(float(stream.average_rate or every) / every))
        with VideoWriter(target, *size, rate) as writer:
            for index, frame in enumerate(film.decode(stream)):
                if index % every == 0:
                    small = frame.to_image().resize(size, Image.Resampling.BILINEAR)
                    writer.write(np.asarray(small))
        return target.read_bytes(), *size


def _with_palette(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame as indices (height, width) into 256 colours of its own (256, 4), opacity first."""
    picture = Image.fromarray(frame).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = np.frombuffer(bytes(picture.getpalette("RGB") or []), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    return np.asarray(picture), palette
