"""The benchmark of methods against forgetting measures what it says, at a small size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import continual
from benchmarks.continual import AIMS, parts


def test_every_part_gives_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where unrolls are stored meanwhile
    monkeypatch.setattr(continual, "NUM_ENVS", 2)
    monkeypatch.setattr(continual, "AIMS", {name: AIMS[name] for name in ("clear", "wpl schur")})
    overheads = continual._overheads(1)
    assert [figure.against for figure in overheads] == ["none, learning", "none"]
    assert all(figure.ratio > 0.0 for figure in overheads)
    assert continual._consolidation()[0].ratio > 0.0
    sampling, checkpoint = continual._store(70)
    assert sampling.facts["ms"] > 0.0
    assert checkpoint.facts["MB on disk"] > 20.0  # a file of 64 unrolls of 50 frames
    assert list(tmp_path.iterdir()) == []


def test_its_parts_are_those_of_the_command() -> None:
    assert [part.name for part in parts(quick=True)] == [
        "continual: training with each method",
        "continual: a consolidation",
        "continual: stored unrolls",
    ]
