"""What a run ends with: scores on training and unseen levels, and videos."""

from __future__ import annotations

from rich.console import Console

from agents import Agent
from experiments.config import TrainConfig
from experiments.run_directory import RunDirectory


def evaluate_and_record(agent: Agent, config: TrainConfig, run: RunDirectory, console: Console) -> None:
    """Score `agent` on the splits of `config`, print the table, and record a video of each game."""
