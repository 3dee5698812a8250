"""One picture of how a run has learned, drawn at its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from evaluation.report.plots import draw_band, draw_panels, published_curve
from evaluation.report.runs import Curve, Run
from evaluation.scoring.references import random_player
from records.directory import RunDirectory


def progress_plot(run: RunDirectory) -> str:
    """The training return of each game against steps, beside OpenAI's published PPO and a random player; SVG.

    Published curves end where the run ends, or at their first point beyond that.
    """
    config = run.read_config()
    curve = Run(run, config).curve()
    plain = config.twist is None
    floor = random_player(config.mode)
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    for game in config.games:
        published = published_curve(game, config.mode, config.levels) if plain else None
        known = floor.scores.get((game, config.levels)) if plain else None
        panels.append((game, partial(_draw, curve, game, published, None if known is None else known.mean)))
    return draw_panels(
        panels, "environment steps", "return of the last 100 training episodes", "progress", shared=False
    )


def _draw(
    curve: Curve, game: str, published: NDArray[np.float64] | None, random_return: float | None, axes: Axes
) -> None:
    draw_band(axes, curve.steps, curve.returns[game][None], 0, "this run")
    last = curve.steps[-1] if len(curve.steps) else 0.0
    if published is not None:
        shown = published[:, : int(np.searchsorted(published[0], last)) + 1]
        axes.errorbar(
            shown[0], shown[1], shown[2], color="grey", fmt="o--", markersize=3, label="published PPO"
        )
    if random_return is not None:
        axes.axhline(random_return, color="grey", linestyle=":", label="random player")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
