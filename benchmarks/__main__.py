"""A short version of every benchmark, in one table: ``make bench``, or ``python -m benchmarks [--json FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks.figures import Part, main

MODULES = ("environment", "network", "operators", "training", "memory", "peers", "scaling", "watching")


def parts(quick: bool = False) -> Sequence[Part]:
    """The parts of all benchmarks; each of them in its short version, whether or not `quick`."""
    return [part for name in MODULES for part in import_module(f"benchmarks.{name}").parts(quick=True)]


if __name__ == "__main__":
    sys.exit(main("Benchmarks", parts))
