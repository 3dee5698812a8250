"""Launch or resume a training run: python train.py --help."""

import sys

from experiments.program import run

if __name__ == "__main__":
    sys.exit(run())
