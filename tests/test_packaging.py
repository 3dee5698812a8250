"""What a fresh clone installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("requirement", DIRECT)
def test_every_direct_dependency_is_pinned_inside_its_range(requirement: str) -> None:
    """Without its pin a package silently comes in whatever version is newest that day."""
    name, operator, bound = re.match(r"([a-z0-9-]+)(>=|<)([0-9.]+)", requirement).groups()  # type: ignore[union-attr]
    pins = [pin.split(";")[0].strip().split("==")[1] for pin in PINS if pin.startswith(f"{name}==")]
    assert pins, f"{name} is not pinned"
    for pin in pins:
        pinned, limit = ([int(part) for part in text.split(".")] for text in (pin, bound))
        assert pinned >= limit if operator == ">=" else pinned < limit


def test_pins_are_exact_and_unambiguous() -> None:
    """Of two pins for one package exactly one holds on each platform and Python."""
    by_name: dict[str, list[str]] = {}
    for pin in PINS:
        match = re.fullmatch(r"([a-z0-9-]+)==[0-9][0-9a-z.]*(?:; (.+))?", pin)
        assert match, pin
        by_name.setdefault(match[1], []).append(match[2] or "")
    opposite = {"==": "!=", "!=": "==", "<": ">=", ">=": "<"}
    for name, markers in by_name.items():
        if len(markers) == 1:
            continue
        assert len(markers) == 2, name
        (left, left_operator, value), (right, right_operator, other) = (
            marker.split(" ") for marker in markers
        )
        assert (left, value, left_operator) == (right, other, opposite[right_operator]), name


def test_python_versions_are_those_with_procgen_wheels() -> None:
    assert PROJECT["requires-python"] == ">=3.10,<3.13"
    assert "procgen>=0.10.7; python_version < '3.11'" in DIRECT
    assert "procgen-mirror>=0.10.7; python_version >= '3.11'" in DIRECT


PACKAGES = ("agents", "benchmarks", "common", "envs", "evaluation", "experiments", "policies", "records")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, since building leaves things behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "train.py", "eval.py"):
        shutil.copy(ROOT / name, folder)
    code = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, env=environment)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_holds_all_that_the_programs_read(wheel: zipfile.ZipFile) -> None:
    """Every file of the packages, data included: published curves, suites, pages, and that types are there."""
    expected = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "results" not in path.parts
    }
    assert "evaluation/report/reference/openai_ppo_curves.json" in expected
    assert expected - set(wheel.namelist()) == set()
    assert {f"{name}/py.typed" for name in PACKAGES} <= set(wheel.namelist())


def test_a_wheel_installs_programs_and_no_module_called_eval(wheel: zipfile.ZipFile) -> None:
    (scripts,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(scripts).decode()
    assert "procgen-srwm-train = experiments.program:run" in text
    assert "procgen-srwm-eval = evaluation.program:run" in text
    assert {name.partition("/")[0] for name in wheel.namelist() if "dist-info" not in name} == set(PACKAGES)
