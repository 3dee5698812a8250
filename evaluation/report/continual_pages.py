"""Tables and plots of tasks one after another, and their numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from envs import normalized_score
from evaluation import continual
from evaluation.continual import Matrix
from evaluation.report import continual_metrics as metrics
from evaluation.report.continual_study import ContinualStudy, Method, Metric, over_runs
from evaluation.report.plots import STYLE, Plot, common_curve, draw_band, draw_panels, svg_of
from evaluation.report.sequence_runs import Sequenced, cost_of
from evaluation.report.statistics import Interval
from evaluation.report.tables import NOTHING, Table, interval_text, number, runs_text
from policies import name_of
from records.continual import PLASTICITY

METRICS: tuple[tuple[str, Metric, int], ...] = (
    ("final performance", metrics.final_performance, 3),
    ("lifetime performance", metrics.lifetime, 3),
    ("forgetting", metrics.forgetting, 3),
    ("from best", metrics.forgetting_from_best, 3),
    ("backward transfer", metrics.backward_transfer, 3),
    ("forward transfer", metrics.forward_transfer, 3),
    ("intransigence", metrics.intransigence, 3),
    ("F (CORA, x 10)", metrics.isolated_forgetting, 2),
    ("F by own scale", metrics.cora_forgetting, 2),
    ("Z (CORA, x 10)", metrics.zero_shot_transfer, 2),
    ("dip", metrics.dip, 3),
    ("relearning", metrics.relearning, 2),
    ("plasticity", metrics.plasticity, 2),
)
"""Title, what computes it, and digits of every metric."""
COMPARED = ("final performance", "forgetting", "F (CORA, x 10)", "dip")
"""Metrics that methods are compared with fine-tuning by."""


def all_items(study: ContinualStudy) -> list[Table | Plot]:
    """Everything that a report says of sequences, the most important first."""
    items: list[Table | Plot] = []
    for split in study.splits:
        items.append(metrics_table(study, split))
        if any(study.reference(method) for method in study.methods):
            items.append(comparison_table(study, split))
    for split in study.splits:
        items += [curves_plot(study, split), matrix_plot(study, split)]
    for split in study.splits:
        items += pair_tables(study, split)
    recovery = [recovery_table(study)] if any(one.recovery for one in _runs(study)) else []
    network = [network_table(study)] if any(_network(method) for method in study.methods) else []
    unfinished = [unfinished_table(study)] if study.unfinished else []
    return [*items, *recovery, *network, cost_table(study), *unfinished]


def _runs(study: ContinualStudy) -> Iterator[Sequenced]:
    return (one for method in study.methods for one in method.runs)


def heading(method: Method) -> str:
    """A method with its number of runs."""
    return f"{method.label} ({runs_text(len(method.runs))})"


# Words


def notes(study: ContinualStudy) -> tuple[str, ...]:
    """How the numbers were measured, and how far they can be trusted."""
    config = study.methods[0].first.run.config
    sequence = config.sequence
    scale = {
        "procgen": "(R - R_min) / (R_max - R_min) with ProcGen's constants",
        "expert": "(R - random) / (expert - random), the experts being those of this report",
        "ppo": "(R - random) / (PPO - random), with published PPO on each game alone after 25 M steps",
    }[study.normalizer]
    chosen = "Greedy (most likely)" if sequence.evaluation_greedy else "Sampled"
    smoothed = (
        f"Scores at boundaries are moving means over {study.smoothing} evaluations, as CORA's."
        if study.smoothing
        else "Scores at boundaries are those of the boundary alone."
    )
    resets = sorted({method.first.run.config.policy.reset for method in study.methods})
    known = sorted({method.first.run.config.policy.tasks.id for method in study.methods})
    heads = sorted({method.first.run.config.policy.tasks.heads for method in study.methods})
    fewest = min(len(method.runs) for method in study.methods)
    trust = (
        ("With one seed of a method there is no interval: nothing can be said about another seed.",)
        if fewest == 1
        else (f"With {fewest} runs, intervals are too narrow: a bootstrap draws only what was seen.",)
        if fewest < 5
        else ()
    )
    return (
        f"Scores: {scale}.",
        f"{chosen} actions; {sequence.boundary_episodes} episodes of each task and split at "
        f"boundaries, {sequence.evaluation_episodes} in between; the same levels at every evaluation.",
        f"The split train stands for the levels that a task is trained on. {smoothed}",
        f"Task id: {', '.join(known)}; heads: {', '.join(heads)}; memory reset: {', '.join(resets)}.",
        "Brackets: 95 % percentile bootstrap intervals over runs.",
        *trust,
    )


_METRIC_NOTES = (
    "Forgetting: mean over all tasks but the last of the score when its stage ended minus that at the end; from best: "
    "the best after any earlier stage instead (Chaudhry). Lifetime: area under the mean score. Forward transfer and "
    "intransigence are against experts of one task with the same steps.",
    "F and Z (CORA): mean over pairs of tasks of what later stages cost, and of what earlier ones gave, in returns "
    "divided by the largest return of all methods here, times 10; by own scale: by the largest of the same method, as "
    "CORA computes it. Dip: how far old tasks fall in the first 2 % of a stage, at their lowest, below the switch.",
    "Relearning: steps to the old score in the second cycle over those in the first. Plasticity: area under a task's "
    "curve in the second cycle over that in the first.",
)


# Tables


def _text(interval: Interval[float], digits: int) -> str:
    return interval_text(interval, digits) if math.isfinite(interval.value) else NOTHING


def metrics_table(study: ContinualStudy, split: str) -> Table:
    """Every metric that is defined for some method."""
    columns = {
        title: [_text(study.interval(method, split, metric), digits) for method in study.methods]
        for title, metric, digits in METRICS
    }
    shown = {title: cells for title, cells in columns.items() if any(cell != NOTHING for cell in cells)}
    rows = tuple(
        (heading(method), *(cells[place] for cells in shown.values()))
        for place, method in enumerate(study.methods)
    )
    return Table(
        f"continual-{split}",
        f"Tasks one after another: what is kept, levels {split}",
        ("method", *shown),
        rows,
        (*(_METRIC_NOTES if split == study.splits[0] else ()), *notes(study)),
    )


def comparison_table(study: ContinualStudy, split: str) -> Table:
    """Methods minus what they are compared with, paired by seed."""
    chosen = [entry for entry in METRICS if entry[0] in COMPARED]
    rows = []
    for method in study.methods:
        reference = study.reference(method)
        if reference is None:
            continue
        found = [(study.improvement(method, split, metric), digits) for _, metric, digits in chosen]
        cells = [NOTHING if interval is None else _text(interval, digits) for interval, digits in found]
        rows.append((method.label, reference.label, *cells))
    note = (
        "The method's number minus that of what it is compared with, on the same seeds. Less forgetting is a negative "
        "number. An interval that holds 0 decides nothing."
    )
    return Table(
        f"continual-differences-{split}",
        f"Differences to fine-tuning, levels {split}",
        ("method", "minus", *(title for title, _, _ in chosen)),
        tuple(rows),
        (note, *notes(study)[-2:]),
    )


def pair_tables(study: ContinualStudy, split: str) -> Iterator[Table]:
    """CORA's tables of pairs: what each stage costs and gives each other task."""
    names = tuple(map(str, study.tasks))
    for place, method in enumerate(study.methods):
        if method.first.joint or len(names) < 2:
            continue
        scale = study.scales[split]
        tables = [
            np.array([pairs(study.raw(one, split), scale) for one in method.runs])
            for pairs in (continual.isolated_forgetting, continual.zero_shot_transfer)
        ]
        rows = tuple(
            (name, *(_pair(tables, row, column) for column in range(len(names))))
            for row, name in enumerate(names)
        )
        note = (
            "Row: task that is scored; column: task of the stage. Right of the diagonal F, what the stage has cost a "
            "task that came before it; left of it Z, what it has given one that comes later. Times 10, mean over runs."
        )
        yield Table(
            f"continual-pairs-{split}-{place}",
            f"F and Z of {method.label}, levels {split}",
            ("task", *names),
            rows,
            (note,),
        )


def _pair(tables: Sequence[Matrix], row: int, column: int) -> str:
    if row == column:
        return NOTHING
    values = tables[0 if column > row else 1][:, row, column]
    return number(continual.CORA_SCALE * continual.mean_or_nan(values), 1)


def recovery_table(study: ContinualStudy) -> Table:
    """What comes back of a lost task by playing it, without gradient."""
    found = {
        (method.label, str(task), condition): returns
        for method in study.methods
        for task in study.tasks
        for condition, returns in _recovery(method, str(task)).items()
    }
    episodes = sorted({episode for returns in found.values() for episode in returns})
    rows = [
        (*place, *(number(returns.get(episode, math.nan)) for episode in episodes))
        for place, returns in found.items()
    ]
    note = (
        "Mean return of the first, second, ... episode in a row of a task that was left, at all later boundaries; "
        "memory is never cleared in between. Fresh: from an empty memory; carried: from what the present task left; "
        "frozen: from an empty memory, without writing."
    )
    header = ("method", "task", "memory", *(f"episode {episode}" for episode in episodes))
    return Table("continual-recovery", "What comes back without gradient", header, tuple(rows), (note,))


def _recovery(method: Method, task: str) -> dict[str, dict[int, float]]:
    """Mean return by condition and number of the episode, over runs and the boundaries after the task's stage."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in method.runs:
        for measured in one.recovery:
            if measured.task == task:
                found.setdefault(measured.condition, {}).setdefault(measured.episode, []).append(
                    measured.mean
                )
    return {
        condition: {episode: float(np.mean(returns)) for episode, returns in by_episode.items()}
        for condition, by_episode in found.items()
    }


def _network(method: Method) -> dict[str, dict[int, list[float]]]:
    """Numbers about the networks of a method's runs, by name and number of the stage that has ended."""
    found: dict[str, dict[int, list[float]]] = {}
    for one in method.runs:
        for measured in one.measured:
            if measured.kind == PLASTICITY:
                found.setdefault(measured.condition, {}).setdefault(measured.stage, []).append(measured.mean)
    return found


def network_table(study: ContinualStudy) -> Table:
    """How the networks change from stage to stage."""
    last = max(
        stage for method in study.methods for by_stage in _network(method).values() for stage in by_stage
    )
    rows = tuple(
        (
            method.label,
            name,
            *(number(float(np.mean(by_stage.get(stage, [math.nan])))) for stage in range(1, last + 1)),
        )
        for method in study.methods
        for name, by_stage in _network(method).items()
    )
    note = (
        "While the task of the stage that has just ended is played, mean over runs. Dormant: share of units whose mean "
        "absolute activation is at most 0.025 of that of all. Effective rank: the exponential of the entropy of the "
        "normalised singular values."
    )
    header = ("method", "number", *(f"after stage {stage}" for stage in range(1, last + 1)))
    return Table("continual-network", "Can the networks still learn?", header, rows, (note,))


def cost_table(study: ContinualStudy) -> Table:
    """What methods cost."""
    rows = []
    for method in study.methods:
        costs = [cost_of(one) for one in method.runs]
        columns = (
            ([cost.speed for cost in costs], 0),
            ([cost.memory for cost in costs], 2),
            ([cost.disk for cost in costs], 2),
            ([cost.evaluation_steps / 1000 for cost in costs], 0),
            ([cost.consolidation_steps / 1000 for cost in costs], 0),
        )
        cells = [number(over_runs(np.array(values)).value, digits) for values, digits in columns]
        config = method.first.run.config
        rows.append((method.label, name_of(config.policy.core), f"{config.total_steps:,}", *cells))
    header = (
        *("method", "policy", "steps of training", "steps/s", "peak memory, GB", "disk, GB"),
        *("evaluation, k steps", "consolidation, k steps"),
    )
    note = "Means over runs. Steps/s count evaluations; neither their steps nor those of consolidation are training."
    return Table("continual-cost", "What the methods cost", header, tuple(rows), (note,))


def unfinished_table(study: ContinualStudy) -> Table:
    """Sequences that lack scores."""
    rows = tuple((run.name, f"{run.saved:,}", f"{run.config.total_steps:,}") for run in study.unfinished)
    note = "These sequences have not come to their end. They are in none of the other tables."
    return Table("continual-unfinished", "Unfinished sequences", ("run", "steps", "of"), rows, (note,))


# Plots


@matplotlib.rc_context(STYLE)
def curves_plot(study: ContinualStudy, split: str) -> Plot:
    """Return on each task in the course of training, its own stages shaded."""
    first = study.methods[0].first
    sequences = [method for method in study.methods if not method.first.joint]
    shaded = sequences[0].first if sequences else first

    def draw(column: int, axes: Axes) -> None:
        for stage in shaded.stages:
            if stage.task_index == column:
                axes.axvspan(
                    shaded.border(stage.number - 1),
                    shaded.border(stage.number),
                    color="#000000",
                    alpha=0.08,
                    linewidth=0,
                )
        for index, method in enumerate(study.methods):
            curves = [one.curve(split) for one in method.runs]
            common = common_curve([(curve.steps, curve.values[:, column]) for curve in curves], points=200)
            if common is not None:
                draw_band(axes, *common, index, method.label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))

    panels = [(str(task), partial(draw, column)) for column, task in enumerate(study.tasks)]
    key = f"continual-curves-{split}"
    svg = draw_panels(panels, "environment steps", "return", key, shared=False)
    note = (
        "Shaded: the task's own stages. Line: mean over runs; band: from the lowest to the highest run (none for one "
        "seed)."
    )
    title = f"Return on each task while all are trained in turn, levels {split}"
    return Plot(key, title, svg, (note, *notes(study)[1:3]))


@matplotlib.rc_context(STYLE)
def matrix_plot(study: ContinualStudy, split: str) -> Plot:
    """Scores by task and stage, a heat map for each method."""
    names = [str(task) for task in study.tasks]
    matrices = [
        study.normalized(np.mean([study.raw(one, split) for one in method.runs], axis=0), split).T
        for method in study.methods
    ]
    columns = min(3, len(matrices))
    lines = math.ceil(len(matrices) / columns)
    width = max(2.4, 0.42 * matrices[0].shape[1] + 1.0)
    figure = Figure(figsize=(width * columns, lines * (0.32 * len(names) + 1.0)), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    known = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for place, method, matrix in zip(places, study.methods, matrices, strict=False):
        _draw_matrix(place, matrix, names, low, high)
        place.set_title(textwrap.fill(method.label, int(11 * width)), fontsize=9)
    for place in places[len(matrices) :]:
        place.set_visible(False)
    figure.supxlabel("stages that have ended", fontsize=9)
    key = f"continual-matrix-{split}"
    note = "Mean score over runs of each task before the first stage (0) and after each."
    title = f"Scores after each stage, levels {split}"
    return Plot(key, title, svg_of(figure, key), (note, *notes(study)[:3]))


def _draw_matrix(axes: Axes, matrix: Matrix, names: Sequence[str], low: float, high: float) -> None:
    axes.imshow(matrix, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    axes.grid(visible=False)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(matrix.shape[1]))
    for (row, column), value in np.ndenumerate(matrix):
        if math.isfinite(value):
            dark = high > low and (value - low) / (high - low) < 0.6
            colour = "white" if dark else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)


# Files


def rows(study: ContinualStudy) -> Iterator[dict[str, Any]]:
    """A row for each run, time, task and split, experts included."""
    for method in study.methods:
        for one in method.runs:
            yield from _rows_of(method.label, one)
    for task, experts in study.experts.items():
        for one in experts:
            yield from _rows_of(f"expert of {task}", one)


def _rows_of(label: str, one: Sequenced) -> Iterator[dict[str, Any]]:
    tasks = {str(task): task for task in one.tasks}
    for measured in one.measured:
        task = tasks.get(measured.task)
        if task is not None:
            yield {
                "method": label,
                "seed": one.seed,
                "step": measured.step,
                "stage": measured.stage,
                "kind": measured.kind,
                "task": measured.task,
                "split": measured.split,
                "return": measured.mean,
                "normalized": float(normalized_score(task.game, task.mode, measured.mean)),
                "episodes": len(measured.returns),
                "evaluation_steps": measured.steps,
                "condition": measured.condition,
                "episode": measured.episode,
            }


def continual_csv(study: ContinualStudy) -> str:
    """Everything that was measured as CSV."""
    table = list(rows(study))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def continual_json(study: ContinualStudy) -> dict[str, Any]:
    """Matrices and metrics as plain JSON values."""

    def plain(values: Matrix) -> Any:
        return [plain(row) for row in values] if values.ndim > 1 else [_finite(value) for value in values]

    return {
        "tasks": list(map(str, study.tasks)),
        "normalizer": study.normalizer,
        "methods": [
            {
                "label": method.label,
                "runs": [one.run.name for one in method.runs],
                "seeds": [one.seed for one in method.runs],
                "splits": {
                    split: {
                        "returns": [plain(study.raw(one, split)) for one in method.runs],
                        "metrics": {
                            title: plain(study.values(method, split, metric)) for title, metric, _ in METRICS
                        },
                    }
                    for split in study.splits
                },
            }
            for method in study.methods
        ],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
