"""What an installed copy needs beside the modules."""

from __future__ import annotations

from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import pytest

from evaluation.report.plots import published_curve

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]


@pytest.mark.parametrize("package", ["evaluation.report", "evaluation.watch"])
def test_everything_that_is_no_module_is_package_data(package: str) -> None:
    folder = Path(str(resources.files(package)))
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    data = [file.as_posix() for file in files if file.suffix not in (".py", ".pyc")]
    assert data
    assert [name for name in data if not any(fnmatch(name, part) for part in DATA[package])] == []


def test_the_published_curves_are_found() -> None:
    assert published_curve("starpilot", "easy", "train") is not None
