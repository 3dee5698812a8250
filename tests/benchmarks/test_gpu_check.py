from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_check import correctness, inputs
from envs import IMAGE_SHAPE, NUM_ACTIONS
from policies.ops.deltanet import deltanet_naive
from policies.ops.srwm import srwm_naive

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_it_says_so_and_needs_no_other_library() -> None:
    others = ["stable_baselines3", "gymnasium", "procgen", "gym3", "tyro", "rich", "av", "matplotlib"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others})); sys.argv[1:] = ['--out', 'nowhere']\n"
        "from benchmarks.gpu_check.__main__ import main; code = main()\n"
        "assert 'triton' not in sys.modules  # nothing loads it before it is needed\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: gpu_check needs a CUDA device, and torch finds none on this machine\n"
    assert done.stdout == ""
    assert not (ROOT / "nowhere").exists()


def wrong_state(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    y, new_shift = srwm_naive(x, w0, shift, reset)
    return y, new_shift * 1.001


def wrong_gradient(x: Tensor, w0: Tensor, shift: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    return srwm_naive(x, w0, shift.detach() + 0.999 * (shift - shift.detach()), reset)


def forgets_resets(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    return deltanet_naive(q, k, v, beta, memory, torch.zeros_like(reset))


def ignores_options(*arguments: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    return srwm_naive(*arguments)


def test_versions_that_do_not_know_of_options_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"naive": srwm_naive, "copy": srwm_naive, "ignorant": ignores_options}
    monkeypatch.setattr(correctness, "VERSIONS", {"srwm": versions})
    right: dict[str, list[bool]] = {}
    for error in correctness.check_options(CPU):
        right.setdefault(error.what.split()[1], []).append(error.right)
    assert set(right) == {"copy", "ignorant"}
    assert all(right["copy"])
    assert not any(right["ignorant"])


def test_wrong_versions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {
        "srwm": {"naive": srwm_naive, "copy": srwm_naive, "state": wrong_state, "gradient": wrong_gradient},
        "deltanet": {"naive": deltanet_naive, "copy": deltanet_naive, "resets": forgets_resets},
    }
    monkeypatch.setattr(correctness, "VERSIONS", versions)
    errors = list(correctness.check_operators(CPU, [(30, 4, 2, 4, 5)]))
    assert len(errors) == 2 * 5
    right = {error.what.split()[1]: error.right for error in errors}
    assert right == {"copy": True, "state": False, "gradient": False, "resets": False}


def test_nothing_that_is_no_number_passes() -> None:
    assert not correctness.Error("", math.nan, 1.0).right
    nan, one = torch.tensor([math.nan]), torch.ones(1)
    assert math.isnan(correctness.largest_error([one, nan], [one, one]))
    assert math.isnan(correctness.largest_error([nan, one], [one, one]))


def test_sizes_are_those_of_the_environments() -> None:
    assert (inputs.IMAGE_SHAPE, inputs.NUM_ACTIONS) == (IMAGE_SHAPE, NUM_ACTIONS)
