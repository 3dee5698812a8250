"""The program that scores, records, reports and shows, as `eval.py` and an installed package start it."""

from __future__ import annotations

from common.cli import run_command, with_subcommands
from evaluation.command_line import main

SUBCOMMANDS: dict[str, str] = {
    "export": "evaluation.trained.export",
    "report": "evaluation.report.command_line",
    "watch": "evaluation.watch.command_line",
}


def run() -> int:
    """Run the command line of this process; returns the exit code."""
    return run_command(with_subcommands(main, SUBCOMMANDS))
