"""Keep the learning curve of a run of `train.py` as one JSON file, beside what it was measured on.

    python -m benchmarks.learning_curve runs/NAME --out benchmarks/results/NAME.json

The curve is the mean training return over each game's last 100 episodes, as the published curves are.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from common.cli import run_with_options
from records.config import to_json
from records.directory import RunDirectory


@dataclass(frozen=True)
class Settings:
    """What to keep.

    Attributes:
        run: run directory.
        out: JSON file to write.
        label: name of the curve in a plot; None for algorithm and policy.
        points: of the curve, at most.
    """

    run: Path
    out: Path
    label: str | None = None
    points: int = 200


def learning_curve(run: RunDirectory, points: int, label: str | None = None) -> dict[str, Any]:
    """Settings, command, machine and curve of `run`; steps count all environments together.

    Raises:
        UserError: it is not a run directory.
    """
    config = run.read_config()
    with run.progress_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    versions = json.loads((run.path / "versions.json").read_text())
    stride = max(1, -(-len(rows) // points))
    kept = rows[stride - 1 :: stride]
    columns = {"steps": "time/total_timesteps", "sps": "time/sps", "entropy": "train/entropy"} | {
        game: f"game/{game}/return" for game in config.games
    }
    return {
        "label": label or f"{config.algorithm_name.upper()}, {config.policy_name}",
        "command": (run.path / "command.txt").read_text().splitlines(),
        "versions": {name: version for name, version in versions.items() if name != "platform"},
        "machine": describe_machine(),
        "config": to_json(config),
        "curve": {
            name: [round(float(row[column]), 3) if row.get(column) else None for row in kept]
            for name, column in columns.items()
        },
    }


def main(settings: Settings) -> None:
    """Write the file that the command line names."""
    record = learning_curve(RunDirectory(settings.run), settings.points, settings.label)
    settings.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, main, "python -m benchmarks.learning_curve", "run"))
