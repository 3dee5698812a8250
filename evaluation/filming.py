"""The part of eval.py's command line that records: films and traces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from agents import Agent
from common.cli import Flag, Shown
from envs.native import FRAMES_PER_SECOND
from evaluation.overlay import STYLES
from evaluation.progress import show_progress
from evaluation.protocol import Protocol
from evaluation.recording import DEFAULT_FRAMES, Film, film_path, record
from evaluation.takes import PICKS
from evaluation.trace import SUFFIX
from evaluation.video import SUFFIXES


@dataclass(frozen=True)
class FilmOptions:
    """Films and traces, of levels of the first split that the agent was not trained on.

    Attributes:
        video: record the agent and write a film: .mp4, .webm or .gif.
        video_seconds: length, unless whole episodes are picked.
        video_overlay: what is shown: plain frames, scores around them, or full: all that the policy thinks, too.
        video_per_game: one file for each game (FILE-maze.mp4) instead of a grid of all.
        video_episodes: show whole episodes: the best, worst or median of some, or several of these.
        video_candidates: episodes of each game among which these are picked.
        video_layer: whose weights the full overlay shows.
        video_head: whose weights the full overlay shows.
        trace: write everything that happened in the recording to this file (.npz), with or without a film.
        trace_frames: keep what the policy saw in it.
    """

    video: Annotated[str | None, Shown("FILE", "none")] = None
    video_seconds: Annotated[int, Shown("N")] = DEFAULT_FRAMES // FRAMES_PER_SECOND
    video_overlay: Annotated[str, Shown("|".join(STYLES))] = Film.style
    video_per_game: Flag = False
    video_episodes: Annotated[tuple[str, ...], Shown(f"{'|'.join(PICKS)} ...", "none")] = ()
    video_candidates: Annotated[int, Shown("N")] = Film.candidates
    video_layer: Annotated[int, Shown("N")] = Film.layer
    video_head: Annotated[int, Shown("N")] = Film.head
    trace: Annotated[str | None, Shown("FILE.npz", "none")] = None
    trace_frames: Flag = False

    @property
    def film(self) -> Film:
        """What the film shows and how."""
        return Film(
            style=self.video_overlay,
            separate=self.video_per_game,
            picks=self.video_episodes,
            candidates=self.video_candidates,
            layer=self.video_layer,
            head=self.video_head,
        )

    @property
    def wanted(self) -> bool:
        """Whether anything is to be recorded."""
        return self.video is not None or self.trace is not None

    def problems(self) -> list[str]:
        """Everything that is wrong with them, a line each."""
        found = [
            *file_problems("--video", self.video, SUFFIXES),
            *file_problems("--trace", self.trace, (SUFFIX,)),
            *self.film.problems(),
        ]
        if self.video_seconds < 1:
            found.append(f"--video-seconds is {self.video_seconds}: give 1 or more")
        if self.trace_frames and self.trace is None:
            found.append("--trace-frames keeps frames in a trace: name its file with --trace")
        return found


def film(
    agent: Agent, protocol: Protocol, options: FilmOptions, split: str, checkpoint: Path, console: Console
) -> None:
    """Record what `options` ask for, and say where it is.

    Args:
        agent: plays.
        protocol: what and how it is scored.
        options: what is recorded.
        split: levels that are played.
        checkpoint: where the agent comes from; is named in the trace.
        console: where progress is shown.
    """
    with show_progress(console, "recording", "frames") as progress:
        record(
            agent,
            protocol.games,
            options.video,
            mode=protocol.mode,
            levels=split,
            frames=options.video_seconds * FRAMES_PER_SECOND,
            greedy=protocol.greedy,
            seed=protocol.seed,
            reset=protocol.reset,
            film=options.film,
            trace=options.trace,
            trace_frames=options.trace_frames,
            trace_meta={"checkpoint": str(checkpoint), "trained_steps": agent.num_timesteps},
            progress=progress,
        )
    if options.video is not None:
        path = Path(options.video)
        paths = [film_path(path, game) for game in protocol.games] if options.video_per_game else [path]
        for one in paths:
            console.print(f"Video: {one}", soft_wrap=True)
    if options.trace is not None:
        console.print(f"Trace: {options.trace}", soft_wrap=True)


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
    if not path.parent.is_dir():
        return [f"{option} {path} cannot be written, there is no directory {path.parent}: create it first"]
    if not os.access(path.parent, os.W_OK):
        return [f"{option} {path} cannot be written, {path.parent} is read-only: choose another directory"]
    return []
