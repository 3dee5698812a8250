"""The plots of a report, as SVG text."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from evaluation.report import statistics
from evaluation.report.gather import Group, Study
from evaluation.report.runs import Curve
from evaluation.report.tables import FEW_REPETITIONS, heading

# Okabe and Ito's colours, which most colour-blind readers can tell apart; then the same again, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {
    "svg.fonttype": "path",  # a reader need not have the font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
"""How all plots look."""


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        key: Its name in files.
        title: What it shows.
        notes: How to read it, a line each.
    """

    key: str
    title: str
    svg: str
    notes: tuple[str, ...] = ()


def published_curves() -> dict[str, Any]:
    """The curves of OpenAI's train-procgen (MIT licence), as its file has them."""
    file = resources.files("evaluation.report") / "reference" / "openai_ppo_curves.json"
    curves: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return curves


def published_curve(game: str, mode: str, levels: str) -> NDArray[np.float64] | None:
    """OpenAI's PPO on a game, where it was trained on the same levels; None where nothing was published.

    Returns:
        Steps, mean and standard deviation of the return over three runs (3, n), one agent for the game.
    """
    if (mode, levels) != ("easy", "train"):
        return None
    data = published_curves()
    curve = data["easy-200"].get(game, {}).get("train")
    return None if curve is None else np.array([data["steps"], curve["mean"], curve["std_over_runs"]], float)


@matplotlib.rc_context(STYLE)
def all_plots(study: Study) -> list[Plot]:
    """Every plot that `study` has the runs for."""
    several = len(study.protocol.games) > 1 or study.experts
    profiles = [profile_plot(study)] if several else []
    return [aggregate_plot(study), *profiles, *learning_plots(study)]


# Learning curves


def common_curve(
    curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], points: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Curves (x, y) of several runs at the same places: x (n,) and y (runs, n).

    None where they have no place in common.
    """
    known = [(x[np.isfinite(x) & np.isfinite(y)], y[np.isfinite(x) & np.isfinite(y)]) for x, y in curves]
    if not known or any(len(x) == 0 for x, _ in known):
        return None
    low, high = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    if low > high:
        return None
    grid = np.linspace(low, high, points)
    return grid, np.stack([np.interp(grid, x, y) for x, y in known])


def learning_plots(study: Study) -> list[Plot]:
    """Training returns against steps and wall-clock time, all games together and each on its own."""
    groups = [group for group in study.groups if group.reset is None]
    curves = [[run.curve() for run in group.runs] for group in groups]
    if not any(len(curve.steps) for members in curves for curve in members):
        return []
    band = "Line: mean over runs; band: from the lowest to the highest run (none for one seed)."
    returns = "Mean return of the last 100 training episodes (sampled actions, training levels)"
    early = (
        "The first entries know only episodes that were over early, which in some games are the solved ones."
    )
    games = _games_plot(study, groups, curves, (f"{returns}. {band}", early))
    single = all(len(run.config.games) == 1 for group in groups for run in group.runs)
    if single and len(study.protocol.games) > 1:
        return [games]
    title, notes = "Learning curves against", (f"{returns}, normalised, mean over games.", band, early)

    def draw(by_time: bool, axes: Axes) -> None:
        for index, (group, members) in enumerate(zip(groups, curves, strict=True)):
            points = [
                (curve.seconds / 3600 if by_time else curve.steps, curve.normalized) for curve in members
            ]
            _draw_curves(axes, points, index, heading(group))
        axes.set(xlabel="hours of training" if by_time else "environment steps")
        axes.set(ylabel="normalised training return")
        if not by_time:
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))

    clock = "Hours during which a run was stopped do not count."
    return [
        _wide_plot("curves-steps", f"{title} environment steps", partial(draw, False), 3.6, notes),
        _wide_plot("curves-time", f"{title} wall-clock time", partial(draw, True), 3.6, (*notes, clock)),
        games,
    ]


def _games_plot(
    study: Study, groups: Sequence[Group], curves: Sequence[Sequence[Curve]], notes: tuple[str, ...]
) -> Plot:
    games, config = study.protocol.games, groups[0].config
    known = games if config.twist is None else ()
    published = {game: published_curve(game, config.mode, config.levels) for game in known}
    references = False

    def draw(game: str, axes: Axes) -> None:
        nonlocal references
        longest = 0.0
        for index, (group, members) in enumerate(zip(groups, curves, strict=True)):
            own = [curve for curve in members if game in curve.returns]
            longest = max([longest, *(curve.steps[-1] for curve in own if len(curve.steps))])
            _draw_curves(axes, [(curve.steps, curve.returns[game]) for curve in own], index, group.label)
        reference = published.get(game)
        if reference is not None and (within := reference[0] <= 1.05 * longest).any():
            references = True
            label = "published PPO, this game alone (3 runs, ± std)"
            steps, mean, deviation = reference[:, within]
            axes.errorbar(steps, mean, deviation, fmt="ks", markersize=4, capsize=3, label=label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))

    panels = [(game, partial(draw, game)) for game in games]
    svg = draw_panels(panels, "environment steps", "training return", "curves-games", shared=False)
    if references:
        note = "Squares: published curves of OpenAI's PPO, one agent for each game, mean ± deviation of three runs."
    elif any(reference is not None for reference in published.values()):
        note = "The published curves of OpenAI's PPO begin at more steps than these runs have made."
    else:
        note = "No curves have been published for these levels."
    together = ("Steps are those of all games together.",) if len(games) > 1 else ()
    title = "Learning curves of each game" if len(games) > 1 else f"Learning curves on {games[0]}"
    return Plot("curves-games", title, svg, (*notes, *together, note))


def _draw_curves(
    axes: Axes, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], index: int, label: str
) -> None:
    common = common_curve(curves)
    if common is not None:
        draw_band(axes, *common, index, label)


def draw_band(
    axes: Axes, x: NDArray[Any], y: NDArray[np.float64], index: int, label: str, marker: str = ""
) -> None:
    """A line for the mean over runs of `y` (runs, n), and a band from the lowest to the highest of several."""
    colour, dashes = _look(index)
    axes.plot(
        x, y.mean(0), color=colour, linestyle=dashes, linewidth=1.4, marker=marker, markersize=3, label=label
    )
    if len(y) > 1:
        axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.15, linewidth=0)


# Scores


def aggregate_plot(study: Study) -> Plot:
    """Interquartile means with their intervals."""
    parts = {f"{name} levels": splits for name, splits in study.parts.items()}
    parts = parts or {"all splits": study.main_splits}
    figure = Figure(figsize=(7, 0.9 + 0.33 * len(study.groups)), layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for panel, (name, splits) in zip(panels, parts.items(), strict=True):
        for index, group in enumerate(study.groups):
            colour, _ = _look(index)
            found = statistics.with_interval(statistics.interquartile_mean, group.normalized(splits))
            if found.low is not None and found.high is not None:
                panel.hlines(index, found.low, found.high, colors=colour, linewidth=7, alpha=0.35)
            panel.plot([found.value], [index], "|", color=colour, markersize=13, markeredgewidth=2.5)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("IQM of normalised scores")
        panel.set_yticks(range(len(study.groups)), [heading(group) for group in study.groups])
        panel.set_ylim(len(study.groups) - 0.5, -0.5)
        panel.grid(visible=False, axis="y")
    note = (
        "Interquartile mean over runs and games; bar: 95 % stratified bootstrap interval (none for one seed)."
    )
    return Plot("aggregates", "All games together, plotted", svg_of(figure, "aggregates"), (note,))


def profile_plot(study: Study) -> Plot:
    """Performance profiles on unseen levels, or on training levels where no others were played."""
    matrices = [group.normalized(study.main_splits) for group in study.groups]
    low, high = min(float(m.min()) for m in matrices), max(float(m.max()) for m in matrices)
    margin = 0.03 * max(high - low, 0.1)
    thresholds = np.linspace(low - margin, high + margin, 101)
    profile_of = statistics.performance_profile(thresholds)

    def draw(axes: Axes) -> None:
        for index, (group, scores) in enumerate(zip(study.groups, matrices, strict=True)):
            colour, dashes = _look(index)
            profile = statistics.with_interval(profile_of, scores, repetitions=FEW_REPETITIONS)
            axes.step(
                thresholds, profile.value, where="post", color=colour, linestyle=dashes, label=heading(group)
            )
            if profile.low is not None and profile.high is not None:
                axes.fill_between(
                    thresholds, profile.low, profile.high, step="post", color=colour, alpha=0.12, linewidth=0
                )
        axes.set(xlabel="normalised score τ", ylabel="share of runs and games above τ", ylim=(-0.02, 1.02))

    where = "unseen levels" if study.unseen else "training levels"
    note = (
        f"Share of (run, game) pairs with a normalised score above τ on {where}; "
        "band: 95 % stratified bootstrap interval (none for one seed)."
    )
    return _wide_plot("profiles", "Performance profiles", draw, 3.2, (note,))


# Figures


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"


def _wide_plot(
    key: str, title: str, draw: Callable[[Axes], None], height: float, notes: tuple[str, ...]
) -> Plot:
    """One panel with a legend beside it."""
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return Plot(key, title, svg_of(figure, key), notes)


@matplotlib.rc_context(STYLE)
def draw_panels(
    panels: Sequence[tuple[str, Callable[[Axes], None]]], xlabel: str, ylabel: str, key: str, shared: bool
) -> str:
    """Panels beside one another with one legend, as SVG.

    Args:
        panels: title and what draws each.
        xlabel: of all panels.
        ylabel: of all panels.
        key: names the picture.
        shared: whether they have a common scale.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (7.0, 2.4 * rows + 0.7) if columns > 1 else (5.5, 3.8)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel()
    for number, (place, (title, draw)) in enumerate(zip(places, panels, strict=False)):
        draw(place)
        place.set_title(title, fontsize=9)
        if number + columns >= len(panels):  # nothing is below it
            place.set_xlabel(xlabel, fontsize=8)
            place.tick_params(labelbottom=True)
    for place in places[len(panels) :]:
        place.set_visible(False)
    figure.supylabel(ylabel, fontsize=9)
    handles, labels = max(
        (place.get_legend_handles_labels() for place in places), key=lambda entries: len(entries[1])
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
    return svg_of(figure, key)


def svg_of(figure: Figure, key: str) -> str:
    """The same picture every time: without a date, and with ids that follow from `key`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
