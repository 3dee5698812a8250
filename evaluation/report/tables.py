"""The tables of a report, as text: each with a title, the protocol it was made by, and its cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs import Task, normalized_score
from evaluation.agent_info import reset_text
from evaluation.report import statistics
from evaluation.report.gather import Group, Study, grouped
from evaluation.report.random_player import random_return
from evaluation.report.runs import Run
from evaluation.report.statistics import Interval
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import estimate

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
FEW_REPETITIONS = 2_000
"""Draws for probabilities of improvement, which take long."""


@dataclass(frozen=True)
class Table:
    """Cells to be shown.

    Attributes:
        key: Its name in files.
        title: What it holds.
        header: One text for each column.
        rows: The cells.
        notes: How to read the table, and the protocol, a line each.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def all_tables(study: Study) -> list[Table]:
    """Every table that `study` has the runs for, the most important first."""
    tables = [aggregate_table(study)]
    if study.unseen:
        tables.append(split_table(study, study.unseen, "unseen", "Scores on unseen levels"))
    if study.seen:
        tables.append(split_table(study, study.seen, "seen", "Scores on training levels"))
    if study.seen and study.unseen:
        tables.append(gap_table(study))
    if len(study.groups) > 1:
        tables.append(improvement_table(study))
    if study.full is not None:
        tables.append(ablation_table(study, study.full))
    if study.experts:
        tables.append(expert_table(study))
    several = study.unseen if len(study.unseen) > 1 else ()
    others = [split for split, kind in study.familiarity.items() if kind == "partly unseen"]
    tables += [
        split_table(study, [split], f"split-{split}", f"Scores on levels {split}")
        for split in (*several, *others)
    ]
    measured = []
    for table in tables:
        groups = [*study.groups, *study.experts] if table.key == "experts" else study.groups
        notes = (*table.notes, *protocol_notes(study.protocol, groups))
        measured.append(replace(table, notes=notes))
    unfinished = [unfinished_table(study.unfinished)] if study.unfinished else []
    return [runs_table(study), *unfinished, *measured]


# Protocol


def protocol_notes(protocol: Protocol, groups: Iterable[Group]) -> tuple[str, ...]:
    """How the scores of `groups` were measured: actions, levels, memory, gradient horizon, number of runs."""
    memories = grouped(groups, lambda group: group.agent.memory_text(group.reset))
    counts = grouped(groups, lambda group: runs_text(len(group.rows)))
    if len(counts) > 1:
        count_note = "; ".join(f"{count}: {_labels(members)}" for count, members in counts.items()) + "."
    elif "one seed" in counts:
        count_note = "One seed of each: no intervals over runs."
    else:
        count_note = f"{next(iter(counts))} of each."
    return (
        f"{protocol.text}; {protocol.mode} mode; evaluation seed {protocol.seed}.",
        *(f"{memory}: {_labels(members)}." for memory, members in memories.items()),
        count_note,
    )


def _labels(groups: Iterable[Group]) -> str:
    return ", ".join(group.label for group in groups)


def runs_text(count: int) -> str:
    """How many runs.

    >>> runs_text(1), runs_text(3)
    ('one seed', '3 runs')
    """
    return "one seed" if count == 1 else f"{count} runs"


def heading(group: Group) -> str:
    """A group with its number of runs."""
    return f"{group.label} ({runs_text(len(group.rows))})"


# Numbers


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, so that columns line up; a dash where it is not known."""
    return f"{value:.{digits}f}".replace("-", MINUS) if np.isfinite(value) else NOTHING


def interval_text(interval: Interval[float], digits: int = 3) -> str:
    """A number and, where there is one, its interval."""
    text = number(interval.value, digits)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def plus_minus(values: NDArray[np.float64], runs: int, digits: int = 2) -> str:
    """Mean ± standard error of `values`, without the latter where they come from a single run."""
    found = estimate(values.ravel().tolist())
    error = f" ± {number(found.standard_error, digits)}" if runs > 1 else ""
    return number(found.mean, digits) + error


def _raw_and_normalized(group: Group, game: str, splits: Sequence[str]) -> str:
    raw = group.raw(game, splits)
    normalized = normalized_score(game, group.config.mode, float(raw.mean()))
    return f"{plus_minus(raw, len(raw))} ({number(normalized, 3)})"


# Tables


def runs_table(study: Study) -> Table:
    """What was compared."""
    rows = []
    for group in [*study.groups, *study.experts]:
        agent = group.agent
        trained = reset_text(agent.reset), reset_text(group.reset or agent.reset), agent.horizon_text
        rows.append(
            (
                group.label,
                agent.policy,
                agent.algorithm.upper(),
                "; ".join(f"{count:,}" for count in group.steps),
                ", ".join(str(row.seed) for row in group.rows),
                *(trained if agent.recurrent else 3 * (NOTHING,)),
                ", ".join(group.games),
            )
        )
    header = (
        *("group", "policy", "algorithm", "steps", "seeds", "memory reset in training", "in evaluation"),
        *("gradient horizon", "games"),
    )
    first = study.groups[0].config
    notes = (
        f"{first.mode} mode, trained on levels {first.levels}.",
        *(f"{note}." for note in study.notes),
    )
    return Table("runs", "Runs", header, tuple(rows), notes)


def unfinished_table(runs: Sequence[Run]) -> Table:
    """Runs that have no scores yet."""
    rows = tuple((run.name, f"{run.saved:,}", f"{run.config.total_steps:,}") for run in runs)
    note = "These runs have not made all their steps. They are in none of the other tables."
    return Table("unfinished", "Unfinished runs", ("run", "steps", "of"), rows, (note,))


def split_table(study: Study, splits: Sequence[str], key: str, title: str) -> Table:
    """Raw and normalised scores of each game; over several splits, their mean."""
    rows = [
        (game, *(_raw_and_normalized(group, game, splits) for group in study.groups))
        for game in study.protocol.games
    ]
    means = [plus_minus(group.normalized(splits).mean(1), len(group.rows), 3) for group in study.groups]
    rows.append(("all games, normalised", *means))
    over = "runs" if len(splits) == 1 else f"runs and the splits {', '.join(splits)}"
    note = (
        f"Mean episode return ± standard error over {over}; in brackets (R - R_min) / (R_max - R_min). "
        "Last row: mean over games of the latter ± standard error over runs."
    )
    return Table(key, title, ("game", *map(heading, study.groups)), tuple(rows), (note,))


def aggregate_table(study: Study) -> Table:
    """Interquartile mean and mean of normalised scores."""
    columns = [
        (f"{title}, {name} levels", aggregate, splits)
        for name, splits in study.parts.items()
        for title, aggregate in (("IQM", statistics.interquartile_mean), ("mean", statistics.mean))
    ]
    rows = []
    for group in study.groups:
        intervals = (
            statistics.with_interval(aggregate, group.normalized(splits)) for _, aggregate, splits in columns
        )
        rows.append((heading(group), *map(interval_text, intervals)))
    note = (
        "Interquartile mean (IQM) and mean over runs and games of normalised scores, with 95 % stratified bootstrap "
        "intervals over runs."
    )
    header = ("group", *(title for title, _, _ in columns))
    return Table("aggregates", "All games together", header, tuple(rows), (note,))


def gap_table(study: Study) -> Table:
    """Normalised score on training levels minus that on unseen ones."""
    rows = []
    for group in study.groups:
        gap = group.normalized(study.seen) - group.normalized(study.unseen)
        cells = [plus_minus(values, len(gap), 3) for values in (gap.mean(1), *gap.T)]
        rows.append((heading(group), *cells))
    note = "Normalised score on training levels minus that on unseen levels, ± standard error over runs."
    header = ("group", "all games", *study.protocol.games)
    return Table("generalisation-gap", "Generalisation gap", header, tuple(rows), (note,))


def _improvement(ours: Group, theirs: Group, splits: Sequence[str]) -> str:
    """Probability that a run of one group beats one of another; a dash for a group and itself."""
    if ours is theirs:
        return NOTHING
    scores = ours.normalized(splits), theirs.normalized(splits)
    return interval_text(
        statistics.with_interval(statistics.probability_of_improvement, *scores, repetitions=FEW_REPETITIONS),
        2,
    )


def improvement_table(study: Study) -> Table:
    """Probability that a run of the row's group beats one of the column's."""
    rows = [
        (heading(ours), *(_improvement(ours, theirs, study.main_splits) for theirs in study.groups))
        for ours in study.groups
    ]
    where = "unseen levels" if study.unseen else "training levels" if study.seen else "all splits"
    note = (
        f"Probability that a run of the row's group scores higher than one of the column's on {where}, mean over "
        "games, with 95 % stratified bootstrap intervals. An interval that holds 0.5 decides nothing."
    )
    header = ("better than →", *(group.label for group in study.groups))
    return Table("improvement", "Probability of improvement", header, tuple(rows), (note,))


def ablation_table(study: Study, full: Group) -> Table:
    """Every group against the full model."""
    header = ["group"]
    for name in study.parts:
        header += [f"{name} levels", f"minus {full.label}", f"P(better than {full.label})"]
    rows = []
    for group in study.groups:
        cells = [heading(group)]
        for splits in study.parts.values():
            ours, theirs = group.normalized(splits), full.normalized(splits)
            cells.append(plus_minus(ours.mean(1), len(ours), 3))
            if group is full:
                cells.append(NOTHING)
            else:
                cells.append(interval_text(statistics.with_interval(statistics.difference, ours, theirs)))
            cells.append(_improvement(group, full, splits))
        rows.append(tuple(cells))
    note = (
        "Mean over games of the normalised score ± standard error over runs; its difference to the full model and "
        "the probability that a run beats one of the full model, with 95 % stratified bootstrap intervals."
    )
    return Table("ablations", f"Ablations against {full.label}", tuple(header), tuple(rows), (note,))


def expert_pairs(study: Study) -> list[tuple[Group, Group]]:
    """Each multi-game group with the expert that has the same policy, trained the same way."""

    def training(group: Group) -> tuple[object, ...]:
        config = group.config
        return (config.policy, config.algorithm_name, group.reset)

    return [
        (group, expert)
        for group in study.groups
        for expert in study.experts
        if training(group) == training(expert)
    ]


def expert_table(study: Study) -> Table:
    """The multi-game runs in percent of the experts."""
    header = ["policy", "game"]
    for name in study.parts:
        header += [f"multi-game, {name}", f"expert, {name}", "percent", "from random"]
    rows = []
    pairs = expert_pairs(study)
    for group, expert in pairs:
        for game in expert.games:
            cells = [group.label, game]
            for splits in study.parts.values():
                cells += [_raw_and_normalized(each, game, splits) for each in (group, expert)]
                cells += [
                    NOTHING if percent is None else f"{number(percent, 0)} %"
                    for percent in (
                        percent_of_expert(group, expert, game, splits),
                        percent_from_random(group, expert, game, splits),
                    )
                ]
            rows.append(tuple(cells))
    unmatched = [expert for expert in study.experts if all(expert is not other for _, other in pairs)]
    multi, single = (
        ", ".join(f"{count:,}" for count in sorted({count for group in groups for count in group.steps}))
        for groups in (study.groups, study.experts)
    )
    notes = (
        "Mean episode return ± standard error over runs and splits, with its normalised score; percent: normalised "
        f"score of the multi-game runs over that of the experts, {NOTHING} where the expert is no better than the "
        "trivial player (normalised score 0 or less).",
        "From random: how much of the way in raw returns from a player of uniformly random actions (100 episodes) to "
        f"the expert the multi-game runs have made; {NOTHING} where the expert is no better than random, or what "
        "random actions give was not measured. Where the expert is hardly better, it says little.",
        f"Steps of training: multi-game runs {multi} for all games together, experts {single} each.",
        *([f"No multi-game runs to hold against: {_labels(unmatched)}."] if unmatched else []),
    )
    return Table("experts", "Multi-game runs against experts", tuple(header), tuple(rows), notes)


def percent_of_expert(group: Group, expert: Group, game: str, splits: Sequence[str]) -> float | None:
    """Normalised score of `group` on a game in percent of that of `expert`; None where that is 0 or less."""
    ours = float(group.normalized(splits, [game]).mean())
    theirs = float(expert.normalized(splits, [game]).mean())
    return 100 * ours / theirs if theirs > 0 else None


def percent_from_random(group: Group, expert: Group, game: str, splits: Sequence[str]) -> float | None:
    """How much of the way from a random player's return to that of `expert` `group` has made, in percent.

    None where the expert is no better than random, and where a random player was not measured.
    """
    config = group.config
    task = Task(game, config.mode, config.levels)
    random = np.mean([random_return(task, split) for split in splits]) if config.twist is None else np.nan
    ours, theirs = (each.raw(game, splits).mean() for each in (group, expert))
    return float(100 * (ours - random) / (theirs - random)) if theirs > random else None
