"""All faults, by name."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.faults.disk import deleted_directory, full_disk, read_only, two_runs
from benchmarks.faults.hostile_files import code_in_files, damaged_newest, flipped_bits, truncation
from benchmarks.faults.kills import aborts, hangs, kills, signals
from benchmarks.faults.mutations import changed_values
from benchmarks.faults.numbers import not_finite
from benchmarks.faults.shared import shared_kills
from benchmarks.faults.workspace import Outcome, Workspace

CASES: dict[str, Callable[[Workspace], Outcome]] = {
    case.__name__: case
    for case in (
        kills,
        signals,
        aborts,
        hangs,
        shared_kills,
        *((full_disk, read_only) if os.geteuid() == 0 else ()),
        deleted_directory,
        two_runs,
        truncation,
        flipped_bits,
        damaged_newest,
        changed_values,
        code_in_files,
        not_finite,
    )
}
