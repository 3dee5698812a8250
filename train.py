"""Launch or resume a training run: python train.py --help."""

import sys

from experiments.cli import run_command
from experiments.launch import main

if __name__ == "__main__":
    sys.exit(run_command(main))
