"""What is recorded, and how."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from common import config
from common.cli import Flag, Shown
from common.config import OneOf, Range
from envs.native import FRAMES_PER_SECOND
from evaluation.recording.overlay import STYLES
from evaluation.recording.replay import CHOICES
from evaluation.recording.trace import SUFFIX
from evaluation.recording.video import SUFFIXES
from policies.cores.base import MAX_SIZE

MAX_SECONDS, MAX_CANDIDATES = 86_400, 100_000
"""Beyond these a number is a typing error."""


@dataclass(frozen=True)
class Recording:
    """Films and traces; also the options of eval.py that ask for them.

    Attributes:
        video: record the agent and write a film: .mp4, .webm or .gif.
        video_seconds: length, unless whole episodes are chosen.
        video_overlay: what is shown: plain frames, scores around them, or full: all that the policy thinks, too.
        video_per_game: one file for each game (FILE-maze.mp4) instead of a grid of all.
        video_episodes: show whole episodes: the best, worst or median of some, or several of these.
        video_candidates: episodes of each game among which these are chosen.
        video_layer: whose weights the full overlay shows.
        video_head: whose weights the full overlay shows.
        trace: write everything that happened in the recording to this file (.npz), with or without a film.
        trace_frames: keep what the policy saw in it.
        trace_weights_every: keep the weights in it only every so many steps; 0 for never.
    """

    video: Annotated[str | None, Shown("FILE", "none")] = None
    video_seconds: Annotated[float, Range(0, MAX_SECONDS, open_low=True), Shown("N")] = 30.0
    video_overlay: Annotated[str, OneOf(STYLES, "overlay"), Shown("|".join(STYLES))] = "scores"
    video_per_game: Flag = False
    video_episodes: Annotated[
        tuple[str, ...],
        OneOf(CHOICES, "choice of episodes"),
        Shown(f"{'|'.join(CHOICES)} ...", "none"),
    ] = ()
    video_candidates: Annotated[int, Range(1, MAX_CANDIDATES), Shown("N")] = 20
    video_layer: Annotated[int, Range(0, MAX_SIZE), Shown("N")] = 0
    video_head: Annotated[int, Range(0, MAX_SIZE), Shown("N")] = 0
    trace: Annotated[str | None, Shown("FILE.npz", "none")] = None
    trace_frames: Flag = False
    trace_weights_every: Annotated[int, Range(0), Shown("N")] = 1

    @property
    def frames(self) -> int:
        """Length of a film without chosen episodes."""
        return max(1, round(self.video_seconds * FRAMES_PER_SECOND))

    @property
    def wanted(self) -> bool:
        """Whether anything is to be recorded."""
        return self.video is not None or self.trace is not None

    def video_files(self, games: tuple[str, ...]) -> list[Path]:
        """The files that the film of `games` goes to: one, or one for each game."""
        if self.video is None:
            return []
        path = Path(self.video)
        if not self.video_per_game:
            return [path]
        return [path.with_name(f"{path.stem}-{game}{path.suffix}") for game in games]

    def problems(self) -> list[str]:
        """Everything that is wrong with the settings, a line each."""
        found = config.problems(self)
        if len(set(self.video_episodes)) < len(self.video_episodes):
            found.append(
                f"episodes {' '.join(self.video_episodes)} are listed more than once: list each once"
            )
        if self.trace_frames and self.trace is None:
            found.append("--trace-frames keeps frames in a trace: name its file with --trace")
        if self.trace_weights_every != 1 and self.trace is None:
            found.append("--trace-weights-every is about a trace: name its file with --trace")
        return found

    def file_problems(self) -> list[str]:
        """One line for each file that cannot be written."""
        return [
            *file_problems("--video", self.video, SUFFIXES),
            *file_problems("--trace", self.trace, (SUFFIX,)),
        ]


def file_problems(option: str, name: str | None, suffixes: tuple[str, ...] = ()) -> list[str]:
    """One line if a file to be written cannot be."""
    if name is None:
        return []
    path = Path(name)
    if path.is_dir():
        return [f"{option} {path} is a directory: name a file"]
    if suffixes and path.suffix.lower() not in suffixes:
        return [
            f"{option} {path} must end in {', '.join(suffixes[:-1])}{' or ' if suffixes[1:] else ''}{suffixes[-1]}"
        ]
    if path.exists() and not path.is_file():
        return [f"{option} {path} is not a regular file: name another"]
    if not path.parent.is_dir():
        return [f"{option} {path} cannot be written, there is no directory {path.parent}: create it first"]
    if not os.access(path.parent, os.W_OK):
        return [f"{option} {path} cannot be written, {path.parent} is read-only: choose another directory"]
    return []
