"""Break short runs in every way we know and look at what they have made.

$ python -m benchmarks.faults --kills 100 --out benchmarks/results/faults.json

Each fault has a name; ``--only kills damage`` tries some of them. Faults of file systems need root (they mount a small
one) and are left out without it. The exit code is 1 if anything was not survived.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from benchmarks.faults.cases import CASES
from benchmarks.faults.process import load_everything
from benchmarks.faults.workspace import Workspace
from benchmarks.machine import describe_machine
from common.cli import run_with_options
from common.config import Range


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        only: names of faults; all if none are given.
        kills: how often runs are killed with -9.
        flips: how many bits are flipped, one at a time.
        mutations: how many checkpoints with wrong values and a right checksum are read.
        seed: of the moments and places.
        jobs: processes side by side, where a fault is tried in many.
        minutes: after which no further checkpoints with wrong values are begun; none for no such limit.
        folder: where runs are made; none for the system's temporary directory.
        out: file for the results, which are added to those that it holds; none only prints them.
    """

    only: tuple[str, ...] = ()
    kills: int = 100
    flips: int = 1000
    mutations: int = 5000
    seed: int = 0
    jobs: Annotated[int, Range(1, 1024)] = 1
    minutes: Annotated[float | None, Range(0, 10**6)] = None
    folder: Path | None = None
    out: Path | None = None


def main(options: Options) -> int:
    """Try the faults; returns the exit code."""
    unknown = [name for name in options.only if name not in CASES]
    if unknown:
        print(f"error: no fault {unknown[0]!r}: there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    load_everything()
    results = {}
    if options.out is not None and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))["faults"]
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults-", dir=options.folder) as folder:
        minutes = math.inf if options.minutes is None else options.minutes
        counts = options.kills, options.flips, options.mutations
        workspace = Workspace(Path(folder), *counts, options.seed, options.jobs, minutes)
        for name in options.only or CASES:
            began = time.monotonic()
            found = CASES[name](workspace)
            results[name] = {
                "tried": found.tried,
                "survived": found.survived,
                "seconds": round(time.monotonic() - began, 1),
                **found.more,
            }
            failed = failed or found.survived != found.tried
            print(f"{name:24} {found.survived}/{found.tried}  {json.dumps(found.more)}", flush=True)
            if options.out is not None:
                record = {
                    "command": "python -m benchmarks.faults "
                    f"--kills {options.kills} --flips {options.flips} --mutations {options.mutations}",
                    "machine": describe_machine(),
                    "faults": results,
                }
                options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(run_with_options(Options, main, "python -m benchmarks.faults"))
