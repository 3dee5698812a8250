"""Launch or resume a training run: python train.py --help."""

import sys

from common.cli import run_command, with_subcommands
from experiments.launch import main

SUBCOMMANDS = {"suite": "experiments.suites.command_line"}

if __name__ == "__main__":
    sys.exit(run_command(with_subcommands(main, SUBCOMMANDS)))
