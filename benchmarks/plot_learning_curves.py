"""Draw learning curves of one game beside the published ones of OpenAI's PPO.

python -m benchmarks.plot_learning_curves benchmarks/results/starpilot_*.json --out docs/learning_curves.png
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from common.cli import Flag, run_with_options
from evaluation.report.plots import published_curves


@dataclass(frozen=True)
class Settings:
    """What to draw.

    Attributes:
        curves: files of `benchmarks.learning_curve`, all of the same single game.
        out: picture to write.
        hours: draw them beside that by the hours they took on their machines, which differ.
    """

    curves: tuple[Path, ...]
    out: Path = Path("learning_curves.png")
    hours: Flag = False


def draw(settings: Settings) -> None:
    """Write the picture."""
    runs: list[dict[str, Any]] = [json.loads(path.read_text()) for path in settings.curves]
    ((game,),) = {tuple(run["config"]["games"]) for run in runs}
    count = 1 + settings.hours
    figure, (all_axes,) = plt.subplots(
        1, count, figsize=(8 + 6 * (count - 1), 4.8), layout="constrained", squeeze=False, sharey=True
    )
    axes = all_axes[0]
    longest = max(run["curve"]["steps"][-1] for run in runs)
    kinds: dict[str, int] = {}  # the seeds of one kind of run share its colour and its line in the legend
    for run in runs:
        kind, _, _ = run["label"].partition(", seed ")
        first = kind not in kinds
        colour = f"C{kinds.setdefault(kind, len(kinds))}"
        steps = [steps / 1e6 for steps in run["curve"]["steps"]]
        axes.plot(steps, run["curve"][game], colour, label=kind if first else None)
        if settings.hours:
            all_axes[1].plot(hours_of(run["curve"]), run["curve"][game], colour)
    config = runs[0]["config"]
    if config.get("twist") is None:
        _draw_published(axes, game, longest)
    axes.set(xlabel="environment steps (millions)", ylabel="training return, mean of the last 100 episodes")
    what = f"levels {config['levels']}" if config.get("twist") is None else f"twist: {config['twist']}"
    axes.set_title(f"{game}, easy, {what}")
    if settings.hours:
        all_axes[1].set(xlabel="hours", title="the same by time")
    for each in all_axes:
        each.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(settings.out, dpi=130)


def hours_of(curve: dict[str, Any]) -> list[float]:
    """When each point of a curve was reached, at its median speed: for minutes a run may have stood still."""
    return [steps / median(curve["sps"]) / 3600 for steps in curve["steps"]]


def _draw_published(axes: Axes, game: str, longest: float) -> None:
    published = published_curves()
    curve = published["easy-200"][game]["train"]
    rows = [
        row
        for row in zip(published["steps"], curve["mean"], curve["std_over_runs"], strict=True)
        if row[0] <= 1.05 * longest
    ]
    axes.errorbar(
        [steps / 1e6 for steps, _, _ in rows],
        [mean for _, mean, _ in rows],
        [std for _, _, std in rows],
        fmt="ks",
        capsize=4,
        label="published: OpenAI's PPO, feed-forward (3 runs, ± std)",
    )


if __name__ == "__main__":
    sys.exit(run_with_options(Settings, draw, "python -m benchmarks.plot_learning_curves", "curves"))
