"""Score a trained agent: ``python eval.py RUN_OR_CHECKPOINT``; all options: ``python eval.py --help``."""

import sys

from common.cli import run_command, with_subcommands
from evaluation.command_line import main

SUBCOMMANDS: dict[str, str] = {
    "export": "evaluation.trained.export",
    "report": "evaluation.report.command_line",
    "watch": "evaluation.watch.command_line",
}

if __name__ == "__main__":
    sys.exit(run_command(with_subcommands(main, SUBCOMMANDS)))
