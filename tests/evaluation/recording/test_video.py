"""Files of films."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.recording.video import animation_of, video_writer


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_films_have_all_their_frames(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    coarse[4] = coarse[3]  # two equal frames in a row are two frames
    pictures = coarse.repeat(20, axis=1).repeat(20, axis=2)
    path = tmp_path / f"film.{suffix}"
    with video_writer(path, 160, 120, 15) as write:
        for picture in pictures:
            write(picture)
    found = frames_of(path)
    assert len(found) == 7
    centres = [frame[10::20, 10::20].astype(int) for frame in found]
    limit = 20 if suffix == "gif" else 40  # the others keep colours at half the resolution
    assert all(np.abs(centre - small).mean() < limit for centre, small in zip(centres, coarse, strict=True))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_film_becomes_a_small_animation(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with video_writer(path, 200, 100, 15) as write:
        for level in range(6):
            write(np.full((100, 200, 3), 40 * level, dtype=np.uint8))
    data, width, height = animation_of(path, 80)
    (tmp_path / "small.gif").write_bytes(data)
    found = frames_of(tmp_path / "small.gif")
    assert (width, height) == (80, 40)
    assert [frame.shape for frame in found] == [(40, 80, 3)] * 3
    assert [round(float(frame.mean()) / 40) for frame in found] == [0, 2, 4]


def test_a_film_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with video_writer(path, 32, 32, 15) as write:
            write(np.zeros((32, 32, 3), dtype=np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    with pytest.raises(ValueError, match="even"), video_writer(path, 33, 32, 15):
        pass
