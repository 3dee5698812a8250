"""Videos in the course of training: where they are asked for, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import read_checkpoint
from common.errors import UserError
from experiments import scores_and_videos
from experiments.launch import train
from helpers import tiny_run
from records.directory import RunDirectory


def test_videos_come_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_and_videos, "TRAINING_VIDEO_SECONDS", 6 / 15)
    with_videos, without = RunDirectory(tmp_path / "with"), RunDirectory(tmp_path / "without")
    assert train(tiny_run(video_every=200), with_videos.path) == 0
    assert train(tiny_run(), without.path) == 0
    # Rollouts begin at multiples of 80, and the last one at 400.
    names = ["step_000000000240.mp4", "step_000000000400.mp4"]
    assert sorted(path.name for path in with_videos.videos.iterdir()) == names
    assert not without.videos.exists()
    with av.open(str(with_videos.videos / names[0])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 6
    events = EventAccumulator(str(with_videos.tensorboard), size_guidance={"images": 0})
    events.Reload()
    pictures = events.Images(scores_and_videos.TAG)
    assert [picture.step for picture in pictures] == [240, 400]
    for picture in pictures:
        assert picture.encoded_image_string[:6] == b"GIF89a"
        assert picture.width <= scores_and_videos.ANIMATION_WIDTH
    # What is learned is the same, bit for bit.
    weights = [
        read_checkpoint(run.checkpoint_files()[-1])["learner"]["policy"] for run in (with_videos, without)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_video_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scores_and_videos, "record", fail)
    assert train(tiny_run(video_every=200), tmp_path / "run") == 0
    assert "no video at step 240" in caplog.text


def test_how_often_must_be_a_number_of_steps() -> None:
    with pytest.raises(UserError, match="video_every is 0: give 1 or more"):
        tiny_run(video_every=0).check()
