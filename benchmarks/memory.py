"""How the memory of a run grows with environments and unrolls.

    python -m benchmarks.memory [--json FILE]

Each size runs in a process of its own: one rollout and one update of six unrolls, which is the same for all sizes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from itertools import islice

from agents import IMPALA
from agents.device import GB, peak_memory
from benchmarks.figures import Figure, Part, main
from envs import TASK_SETS, ProcgenVecEnv

FRAME_BYTES = 64 * 64 * 3
BATCH = 6
Size = tuple[int, int]
"""Number of environments, and steps of a rollout."""


def peak_of(num_envs: int, steps: int) -> float:
    """Peak memory in GB of this process, after a rollout of `steps` steps in `num_envs` environments and an update."""
    agent = IMPALA(
        "srwm", ProcgenVecEnv(TASK_SETS["easy6"], num_envs), seed=0, batch_unrolls=BATCH, rollout_steps=steps
    )
    batches = agent.learner.batches
    agent.learner.batches = lambda rollout: islice(batches(rollout), 1)  # type: ignore[method-assign]
    agent.learn(1)
    return peak_memory()["peak_gb"]


def _in_a_process(num_envs: int, steps: int) -> float:
    words = [sys.executable, "-m", "benchmarks.memory", "--size", str(num_envs), str(steps)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


def parts(quick: bool = False) -> list[Part]:
    """Each size; the last one gives the figures of all."""
    sizes = [(66, 50), (264, 50), (528, 50)] if quick else [(66, 50), (330, 50), (1320, 50), (330, 200)]
    peaks: dict[Size, float] = {}

    def run(size: Size) -> list[Figure]:
        peaks[size] = _in_a_process(*size)
        return _figures(peaks, *sizes[:3]) if len(peaks) == len(sizes) else []

    return [
        Part(f"memory: {num_envs} environments x {steps} steps", partial(run, (num_envs, steps)))
        for num_envs, steps in sizes
    ]


def _figures(peaks: Mapping[Size, float], small: Size, middle: Size, large: Size) -> list[Figure]:
    """Growth from small to middle to large: linear if the second step costs as much per frame as the first."""

    def per_frame(few: Size, many: Size) -> float:
        return (peaks[many] - peaks[few]) * GB / (many[0] * many[1] - few[0] * few[1])

    facts = {f"{num_envs} environments x {steps} steps GB": peak for (num_envs, steps), peak in peaks.items()}
    return [
        Figure(
            f"memory for one more step of one environment, {middle[0]} to {large[0]} environments",
            f"{small[0]} to {middle[0]} environments",
            per_frame(middle, large) / per_frame(small, middle),
            aim=1.1,
            at_most=True,
            facts=facts,
        ),
        Figure(
            "memory for one more step of one environment",
            "the frame itself, 12 288 bytes",
            per_frame(small, large) / FRAME_BYTES,
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--size"]:
        print(peak_of(int(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.exit(main("Memory", parts))
