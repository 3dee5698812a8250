"""The README's core in one file, exactly as printed, in a copy of the project: no test needs to know of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ["agents", "common", "envs", "policies", "tests"]
TESTS = ["tests/policies/cores", "tests/policies/test_policy.py", "tests/policies/ops/test_choice.py"]
RESUMED = "tests/agents/test_impala.py::test_a_run_that_was_interrupted_ends_as_if_it_had_not_been"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, where somebody has done what the README says."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"### Add a core in one file\n(.*?)\n## ", text, re.S)
    assert section is not None
    file, code, line = re.findall(
        r"In `([\w/.]+)`:\n\n```python\n(.*?)```.*?one line in `policies/registry.py`: `(.*?)`",
        section[1],
        re.S,
    )[0]
    copy = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / file).write_text(code)
    registry = copy / "policies" / "registry.py"
    before = registry.read_text()
    last = '    "sr_delta": "SrDeltaCore",\n'
    assert last in before
    registry.write_text(before.replace(last, f"{last}    {line}\n"))
    return copy


def run(project: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def test_it_keeps_the_contract(project: Path) -> None:
    told = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-k", "decay", *TESTS, RESUMED)
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None
    assert int(passed[1]) > 50


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]])
def test_ruff_has_nothing_to_say(project: Path, check: list[str]) -> None:
    run(project, "ruff", *check, "--no-cache", "policies")
