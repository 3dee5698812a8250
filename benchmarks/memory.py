"""How the memory of a run grows with slots and unrolls.

    python -m benchmarks.memory [--json FILE]

Each size runs in a process of its own: one rollout and one update of six unrolls, which is the same for all sizes.
"""

from __future__ import annotations

import subprocess
import sys

import torch

from agents import IMPALA
from agents.memory import GB, peak_memory
from benchmarks.figures import Figure, main
from envs import TASK_SETS, ProcgenVecEnv

FRAME_BYTES = 64 * 64 * 3
BATCH = 6


def peak_of(slots: int, steps: int) -> float:
    """Peak memory in GB of this process, after one rollout of `steps` steps in `slots` slots and one update."""
    agent = IMPALA(
        "srwm", ProcgenVecEnv(TASK_SETS["easy6"], slots), seed=0, batch_unrolls=BATCH, rollout_steps=steps
    )
    agent.update = lambda batch: agent._update_once(batch.select(torch.arange(BATCH)))  # type: ignore[method-assign]
    agent.learn(1)
    return peak_memory()["peak_gb"]


def _in_a_process(slots: int, steps: int) -> float:
    words = [sys.executable, "-m", "benchmarks.memory", "--size", str(slots), str(steps)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


def measure(quick: bool = False) -> list[Figure]:
    """Growth from small to middle to large: linear if the second step costs as much per frame as the first."""
    sizes = [(66, 50), (264, 50), (528, 50)] if quick else [(66, 50), (330, 50), (1320, 50), (330, 200)]
    peaks = {size: _in_a_process(*size) for size in sizes}
    small, middle, large = sizes[:3]

    def per_frame(few: tuple[int, int], many: tuple[int, int]) -> float:
        return (peaks[many] - peaks[few]) * GB / (many[0] * many[1] - few[0] * few[1])

    facts = {f"{slots} slots x {steps} steps GB": peak for (slots, steps), peak in peaks.items()}
    return [
        Figure(
            f"memory for one more step of one slot, {middle[0]} to {large[0]} slots",
            f"{small[0]} to {middle[0]} slots",
            per_frame(middle, large) / per_frame(small, middle),
            aim=1.1,
            at_most=True,
            facts=facts,
        ),
        Figure(
            "memory for one more step of one slot",
            "the frame itself, 12 288 bytes",
            per_frame(small, large) / FRAME_BYTES,
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--size"]:
        print(peak_of(int(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.exit(main("Memory", measure))
