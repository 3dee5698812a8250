"""Is everything right and fast on this GPU: all of it in one call of a few minutes.

    python -m benchmarks.gpu_check --out DIR

First every version of every operator against the plain loop in float64: values, carried state and gradients of all
inputs, with resets, and twice with the same result. Then times, by the device's own events: the operators against the
plain loop and against single steps, and one acting step and one learner update of the paper's network, launched
kernel by kernel and as a CUDA graph. Prints one table, and writes DIR/gpu_check.json.

Exit code 0: all versions are right. 1: one is not. 2: there is no GPU. Needs no more than torch and Triton.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu_check.correctness import CHECKED, check_half_precision, check_operators, check_options
from benchmarks.gpu_check.inputs import make_policy
from benchmarks.gpu_check.report import Report
from benchmarks.gpu_check.speed import (
    POLICIES,
    TIMED,
    profile_policy,
    time_acting,
    time_learning,
    time_operators,
)
from benchmarks.gpu_check.timing import copy_rate


def check(device: torch.device, out: Path | None, quick: bool = False) -> int:
    """All of it; returns the exit code."""
    report = Report(out)
    checked, timed = (CHECKED[:2], TIMED[:1]) if quick else (CHECKED, TIMED)
    acting, learning = ((66,), (32,)) if quick else ((66, 512), (32, 256))
    with report.part("operators"):
        report.add_errors(check_operators(device, checked))
    with report.part("options"):
        report.add_errors(check_options(device))
    with report.part("half precision"):
        report.add_errors(check_half_precision(device))
    with report.part("times of operators"):
        report.add_lines(time_operators(device, timed, copy_rate(device)))
    for core, precision in POLICIES:
        label, policy = f"{core} {precision}", make_policy(core, precision, device)
        for batch in acting:
            with report.part(f"acting of {label}"):
                report.add_lines(time_acting(policy, label, batch, device))
        for batch in learning:
            with report.part(f"learning of {label}"):
                report.add_lines(time_learning(policy, label, batch, device))
    with report.part("profile"):
        report.add_profile(profile_policy(device))
    for problem in report.problems():
        print(problem, file=sys.stderr)
    return 1 if report.problems() else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="directory for gpu_check.json")
    parser.add_argument("--quick", action="store_true", help="fewer shapes and sizes")
    arguments = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("error: gpu_check needs a CUDA device, and torch finds none on this machine", file=sys.stderr)
        return 2
    return check(torch.device("cuda"), arguments.out, arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
