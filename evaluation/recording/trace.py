"""Traces: everything that happened in a recording, as arrays in a file."""

from __future__ import annotations

import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.native import IMAGE_SHAPE
from evaluation.inspection import StepView
from evaluation.play import Step
from policies import Policy

SUFFIX = ".npz"
_BYTES_OF_A_STEP = 150
"""Of one game, numbers alone."""
FORMAT = "procgen-srwm trace"
VERSION = 2
WEIGHTS = "weights/"
"""What the names of the arrays begin with that hold weights."""


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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but pictures by name, as docs/watching.md describes it."""
        view, step = self.view, self.step
        names = ("returns", "values", "actions", "steps", "levels", "starts", "probabilities")
        readings = {name: values for named in view.readings.values() for name, values in named.items()}
        return {
            **{name: getattr(view, name) for name in names},
            "rewards": step.rewards,
            "ended": step.ended,
            "active": self.active,
            **{f"readings/{name}": values for name, values in readings.items()},
            **{f"{WEIGHTS}{name}": tensor.numpy() for name, tensor in view.weights.items()},
        }


def trace_bytes(policy: Policy, games: int, steps: int, frames: bool = False, weights_every: int = 1) -> int:
    """About how many bytes the arrays of a trace have, before they are compressed (to a half to a third, mostly)."""
    written = policy.core.written_weights(policy.initial_state(1)).values()
    weights = (
        sum(tensor.nbytes for tensor in written) * math.ceil(steps / weights_every) if weights_every else 0
    )
    step = _BYTES_OF_A_STEP + (math.prod(IMAGE_SHAPE) if frames else 0)
    return games * (weights + steps * step)


@contextmanager
def trace_writer(
    path: str | os.PathLike[str],
    steps: int,
    meta: Mapping[str, Any],
    frames: bool = False,
    weights_every: int = 1,
) -> Iterator[Callable[[Frame], None]]:
    """Gives a function that adds the next step to a trace.

    The trace appears at `path`, whole or not at all, when the context is left without an error. It is an archive of
    arrays that `numpy.load` reads (without pickle). Steps go to the disk as they come, so that a long trace needs no
    memory.

    Args:
        path: where it goes; the directory must exist.
        steps: that will be added, T.
        meta: facts about the recording, plain JSON values.
        frames: whether to keep what the policy saw.
        weights_every: of so many steps the first one's weights are kept; 0 for none.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    indices = count()
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
    ) as folder:

        def add(frame: Frame) -> None:
            index = next(indices)
            pictures = {"frames": frame.view.rgb} if frames else {}
            for name, values in {**frame.arrays(), **pictures}.items():
                every = weights_every if name.startswith(WEIGHTS) else 1
                if not every or index % every:
                    continue
                if name not in arrays:
                    arrays[name] = np.lib.format.open_memmap(
                        f"{folder}/{len(arrays)}.npy",
                        "w+",
                        values.dtype,
                        (math.ceil(steps / every), *values.shape),
                    )
                arrays[name][index // every] = values

        yield add
        facts = {"format": FORMAT, "version": VERSION, "weights_every": weights_every, **meta}
        about = np.array(json.dumps(facts))
        with zipfile.ZipFile(f"{folder}/archive", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in {"meta": about, **arrays}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        os.replace(f"{folder}/archive", path)


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
