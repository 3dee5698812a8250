"""Which command a run was started by, where torchrun or Slurm may start the same command again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "launch.json"


def launch_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """What stays the same when Slurm or torchrun starts a command again; None where neither does."""
    # Slurm first: a job that is requeued starts another torchrun.
    return environment.get("SLURM_JOB_ID") or environment.get("TORCHELASTIC_RUN_ID")


def is_restart(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this command has been started before: after a process died, or a job was requeued."""
    counts = (environment.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count not in ("", "0") for count in counts)


def record_of(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """What a run directory has to say of its launch; None where nobody starts it again."""
    name = launch_id(environment)
    return None if name is None else {"launch": name, "command": list(command)}


def begun_by(command: Sequence[str], places: Sequence[Path]) -> Path | None:
    """The run directory among `places` that an earlier start of this very launch has made; the latest if several."""
    wanted = record_of(command)
    if wanted is None or not is_restart():
        return None
    found = []
    for place in places:
        try:
            if json.loads((place / FILE).read_text(encoding="utf-8")) == wanted:
                found.append(((place / FILE).stat().st_mtime, place))
        except (OSError, ValueError):
            continue
    return max(found)[1] if found else None
