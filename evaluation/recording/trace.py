"""Traces: everything that happened in a recording, as arrays in a file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.inspection import StepView
from evaluation.play import Step

SUFFIX = ".npz"
FORMAT = "procgen-srwm trace"
VERSION = 2


@dataclass(frozen=True)
class Frame:
    """One frame of a recording of N games.

    Attributes:
        view: What is seen, and the policy's answer.
        step: What this answer led to.
        active: Where the game plays; elsewhere it has ended and waits for longer ones (N,).
    """

    view: StepView
    step: Step
    active: NDArray[np.bool_]


class TraceWriter:
    """A trace file that appears at `path`, whole or not at all, when the context is left without an error.

    It is an archive of arrays that `numpy.load` reads (without pickle); docs/watching.md describes them. Steps go to
    the disk as they come, so that a long trace needs no memory.

    Args:
        path: where it goes; the directory must exist.
        steps: that will be added, T.
        meta: facts about the recording, plain JSON values.
        frames: whether to keep what the policy saw.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], steps: int, meta: Mapping[str, Any], frames: bool = False
    ) -> None:
        self._path, self._steps, self._frames = Path(path), steps, frames
        self._meta = dict(meta)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
        self._arrays: dict[str, np.memmap[Any, Any]] = {}
        self._written = 0

    def add(self, frame: Frame) -> None:
        """The next step."""
        view, step = frame.view, frame.step
        names = ("returns", "values", "actions", "steps", "levels", "starts", "probabilities")
        columns = {
            **{name: getattr(view, name) for name in names},
            "rewards": step.rewards,
            "ended": step.ended,
            "active": frame.active,
            **{
                f"readings/{name}": values
                for named in view.readings.values()
                for name, values in named.items()
            },
            **{f"weights/{name}": tensor.numpy() for name, tensor in view.weights.items()},
        }
        if self._frames:
            columns["frames"] = view.rgb
        for name, values in columns.items():
            if name not in self._arrays:
                file = self._folder / f"{name.replace('/', '--')}.npy"
                self._arrays[name] = np.lib.format.open_memmap(
                    file, mode="w+", dtype=values.dtype, shape=(self._steps, *values.shape)
                )
            self._arrays[name][self._written] = values
        self._written += 1

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            names = list(self._arrays)
            for array in self._arrays.values():
                array.flush()
            self._arrays.clear()
            if kind is None:
                if self._written != self._steps:
                    raise ValueError(f"{self._written} steps were added to a trace of {self._steps}")
                self._pack(names)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _pack(self, names: list[str]) -> None:
        archive = self._folder / "archive"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            about = {"format": FORMAT, "version": VERSION, **self._meta}
            with file.open("meta.npy", "w") as entry:
                np.lib.format.write_array(entry, np.array(json.dumps(about)), allow_pickle=False)
            for name in names:
                file.write(self._folder / f"{name.replace('/', '--')}.npy", f"{name}.npy")
        os.replace(archive, self._path)


def read_trace(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The facts about a trace file and its arrays by name.

    Raises:
        ValueError: it is not a trace.
        OSError: it cannot be read.
    """
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["meta"])) if "meta" in file else {}
        if about.get("format") != FORMAT:
            raise ValueError(f"{path} is not a trace")
        return about, {name: file[name] for name in file.files if name != "meta"}
