"""The program that trains, as `train.py` and an installed package start it."""

from __future__ import annotations

import sys

from common.cli import run_command, with_subcommands
from experiments.launch import main

SUBCOMMANDS = {"memory": "experiments.memory.command_line", "suite": "experiments.suites.command_line"}


def run() -> int:
    """Run the command line of this process; returns the exit code."""
    return run_command(with_subcommands(main, SUBCOMMANDS))


if __name__ == "__main__":
    sys.exit(run())
