"""Score a trained agent: ``python eval.py RUN_OR_CHECKPOINT``; all options: ``python eval.py --help``."""

import sys

from evaluation.program import run

if __name__ == "__main__":
    sys.exit(run())
