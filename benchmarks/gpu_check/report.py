"""What was found: printed at once, and kept as one file."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.correctness import Error
from benchmarks.gpu_check.speed import Line
from benchmarks.machine import describe_machine


class Report:
    """Prints what was found as it is found, and keeps it for the file."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self.errors: list[Error] = []
        self.lines: list[Line] = []
        self.profile: dict[str, list[dict[str, Any]]] = {}
        self.failures: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """One part of the check; when it breaks off, the others still run."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{name} broke off: {type(error).__name__}: {error}")
        self._write()

    def add_errors(self, errors: Iterable[Error]) -> None:
        """Largest errors, those that are too large marked."""
        for error in errors:
            self.errors.append(error)
            mark = "" if error.right else "   WRONG"
            print(
                f"{error.what:<44} error {error.largest:9.2e}  allowed {error.allowed:9.2e}{mark}", flush=True
            )

    def add_lines(self, lines: Iterable[Line]) -> None:
        """The table of times."""
        for line in lines:
            self.lines.append(line)
            ratio = "" if line.ratio is None else f"{line.ratio:8.2f} x {line.against}"
            if line.ratio is not None and line.aim is not None:
                ratio += f" (aim {line.aim:g}: {'reached' if line.ratio >= line.aim else 'missed'})"
            facts = ", ".join(f"{name} {value:,.4g}" for name, value in line.facts.items())
            print(f"{line.name:<62} {line.milliseconds:10.3f} ms {ratio:<40} {facts}".rstrip(), flush=True)

    def add_profile(self, profile: dict[str, list[dict[str, Any]]]) -> None:
        """The kernels that take longest."""
        self.profile = profile
        for part, rows in profile.items():
            print(f"longest kernels of the {part}:")
            for row in rows:
                print(f"{row['microseconds']:10.1f} us {row['calls']:5d} x {row['kernel']}")

    def problems(self) -> list[str]:
        """What is wrong, in a line each."""
        wrong = [f"wrong: {error.what}" for error in self.errors if not error.right]
        return self.failures + wrong

    def _write(self) -> None:
        if self._out is None:
            return
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.gpu_check", *sys.argv[1:]]),
            "machine": {**describe_machine(), "triton": metadata.version("triton")},
            "errors": [asdict(error) for error in self.errors],
            "times": [asdict(line) for line in self.lines],
            "longest kernels": self.profile,
            "problems": self.problems(),
        }
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n")
