"""A short version of every benchmark, in one table: ``make bench``, or ``python -m benchmarks [--json FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks.figures import Figure, main

MODULES = ("environment", "network", "operators", "training", "memory", "peers", "watching")


def measure(quick: bool = False) -> Sequence[Figure]:
    """All figures of all benchmarks; each of them in its short version, whether or not `quick`."""
    return [figure for name in MODULES for figure in import_module(f"benchmarks.{name}").measure(quick=True)]


if __name__ == "__main__":
    sys.exit(main("Benchmarks", measure))
