"""Launch or resume a training run: python train.py --help."""

import sys

from common.cli import run_command, with_subcommands
from experiments.launch import main

SUBCOMMANDS = {"memory": "experiments.memory.command_line", "suite": "experiments.suites.command_line"}

if __name__ == "__main__":
    sys.exit(run_command(with_subcommands(main, SUBCOMMANDS)))
