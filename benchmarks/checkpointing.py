"""What it costs to be able to lose nothing: seconds of training, of what is done in each rollout, and of a checkpoint.

$ python -m benchmarks.checkpointing --out benchmarks/results/checkpointing.json

Processor time, so that other work on the machine does not count; waiting for the disk is measured apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from agents import IMPALA
from agents.numerics import StateWatch, finite
from benchmarks.machine import describe_machine
from common.cli import run_with_options
from envs import TASK_SETS, ProcgenVecEnv
from records.config import TrainConfig


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        policy: recurrent core, at the paper's sizes.
        num_envs: environments of the six games.
        out: file for the result; none only prints it.
    """

    policy: str = "srwm"
    num_envs: int = 66
    out: Path | None = None


def _least(action: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    spent = []
    for _ in range(times):
        began = clock()
        action()
        spent.append(clock() - began)
    return min(spent)


def main(options: Options) -> None:
    """Measure and print."""
    env = ProcgenVecEnv(TASK_SETS["easy6"], options.num_envs, num_threads=0)
    agent = IMPALA(options.policy, env, seed=0)
    agent.learn(1)
    cpu, wall = time.process_time, time.perf_counter
    rollout = _least(lambda: agent.learn(1, reset_num_timesteps=False), 3, cpu)
    per_rollout = {
        "copy_of_weights": _least(lambda: deepcopy(agent.learner.state()), 20, cpu),
        "state_of_the_run": _least(lambda: agent.actors.state(agent.stream), 20, cpu),
        "checks_of_numbers": _least(
            lambda: (
                finite(agent.policy.parameters()),
                StateWatch().check(agent.actors.collector.core_state),
            ),
            20,
            cpu,
        ),
    }
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "a.ckpt"
        save_cpu = _least(lambda: agent.save(path), 10, cpu)
        save_wall = _least(lambda: agent.save(path), 10, wall)
        megabytes = path.stat().st_size / 2**20
    env.close()
    config = TrainConfig()
    steps = options.num_envs * agent.config.rollout_steps
    assert config.checkpoint_every_steps is not None
    assert config.checkpoint_every_minutes is not None
    interval = min(60 * config.checkpoint_every_minutes, config.checkpoint_every_steps / steps * rollout)
    result = {
        "command": f"python -m benchmarks.checkpointing --policy {options.policy} --num-envs {options.num_envs}",
        "machine": describe_machine(),
        "seconds_of_a_rollout": round(rollout, 3),
        "seconds_per_rollout": {name: round(value, 5) for name, value in per_rollout.items()},
        "checkpoint_mb": round(megabytes, 1),
        "seconds_of_a_checkpoint": {"processor": round(save_cpu, 4), "with_the_disk": round(save_wall, 4)},
        "default_interval_seconds": round(interval, 1),
        "percent_per_rollout": round(100 * sum(per_rollout.values()) / rollout, 3),
        "percent_of_checkpoints": round(100 * save_wall / interval, 3),
    }
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_with_options(Options, main, "python -m benchmarks.checkpointing"))
