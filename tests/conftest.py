"""What all tests share."""

from __future__ import annotations

import os

# Before torch is loaded, and for processes that tests start: tests are small, threads would only compete.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import hypothesis
import pytest
import torch

import policies.precision
from common import silence_gym

# Without a GPU, kernels run in Triton's interpreter. That has to be known before Triton is loaded, which torch's
# optimisers do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

silence_gym()  # test modules may import Stable-Baselines3 before a package of ours
torch.set_num_threads(1)

# The same examples at every run, and no complaint about a busy machine.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")


_has_bfloat16_units = policies.precision.has_bfloat16_units


@pytest.fixture(autouse=True, scope="session")
def float32_by_default() -> Iterator[None]:
    """Tests compute the same on every machine: `auto` finds no bfloat16 units, unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies.precision, "has_bfloat16_units", lambda device: False)
        yield


@pytest.fixture
def units_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `auto` finds outside tests."""
    monkeypatch.setattr(policies.precision, "has_bfloat16_units", _has_bfloat16_units)
