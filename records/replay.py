"""Whether the unrolls that a run is to store fit on its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from agents.retention import retention_names
from agents.retention.clear import Clear, capacity
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from policies import Policy
from records.config import TrainConfig

WASTE = 2
"""At most half of the stored rows are of no use."""


def replay_problems(config: TrainConfig, run_dir: Path) -> list[str]:
    """One line if the run in `run_dir` would store more than fits there, found before anything is created."""
    if Clear.name not in retention_names(config.retention) or config.retain.replay_ratio == 0.0:
        return []
    row = _unroll_bytes(config)
    steps = min(config.retain.replay_steps, config.total_steps)
    needed = WASTE * capacity(config.retain, config.agent.rollout_steps, row) * row
    needed = min(needed, WASTE * row * max(1, steps // config.agent.rollout_steps))
    place = next(parent for parent in run_dir.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed <= free:
        return []
    return [
        f"retain.replay_steps {config.retain.replay_steps:,} can need {needed / 1e9:,.1f} GB on the disk of {place}, "
        f"{free / 1e9:,.1f} GB are free: store fewer, or bound them with retain.replay_gb"
    ]


def _unroll_bytes(config: TrainConfig) -> int:
    """Bytes of one stored unroll."""
    steps = config.agent.rollout_steps
    frame = torch.Size(IMAGE_SHAPE).numel() + 4 + 1
    step = 8 + 3 * 4 + 1 + 4 * NUM_ACTIONS
    with torch.device("meta"):  # takes no memory
        state = Policy(config.policy, IMAGE_SHAPE, NUM_ACTIONS).initial_state(1)
    return (steps + 1) * frame + steps * step + sum(tensor.nbytes for tensor in state.values())
