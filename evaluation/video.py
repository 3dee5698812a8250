"""Write frames to an mp4 file."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray


class VideoWriter:
    """An H.264 film that appears at `path`, whole or not at all, when the context is left without an error.

    Args:
        path: where it goes; the directory must exist.
        width, height: of the frames in pixels, even numbers.
        frames_per_second: how fast it is played.

    Raises:
        ValueError: the size is odd, which the usual colour format (yuv420p) cannot have.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], width: int, height: int, frames_per_second: int) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"video frames must have even sizes, not {width} x {height}")
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._partial.touch()  # its error names the file, those of the library do not
        # The index goes first, so that browsers can play the file while they load it.
        self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        # A quality near the visible limit: letters and sprites a few pixels wide stay sharp.
        quality = {"crf": "18", "preset": "veryfast"}
        self._stream = self._container.add_stream("libx264", frames_per_second, options=quality)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame (height, width, 3), RGB."""
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

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
