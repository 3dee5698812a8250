"""The tables of a report, as text: each with a title, the protocol it was made by, and its cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs import normalized_score
from evaluation.report import statistics
from evaluation.report.gather import Group, Study
from evaluation.report.runs import Run
from evaluation.report.statistics import Interval, standard_error
from evaluation.scoring.protocol import Protocol
from policies import CORES

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Table:
    """Cells to be shown.

    Attributes:
        key: Its name in files.
        title: What it holds.
        header: One text for each column.
        rows: The cells.
        notes: The protocol, and how to read the table, a line each.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def all_tables(study: Study) -> list[Table]:
    """Every table that `study` has the runs for, the most important first."""
    tables = [runs_table(study)]
    if study.unfinished:
        tables.append(unfinished_table(study.unfinished))
    tables.append(aggregate_table(study))
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
    if len(study.unseen) > 1:
        tables += [
            split_table(study, [split], f"split-{split}", f"Scores on {split}") for split in study.unseen
        ]
    others = [split.name for split in study.protocol.levels if split.name not in (*study.seen, *study.unseen)]
    tables += [split_table(study, [split], f"split-{split}", f"Scores on levels {split}") for split in others]
    return tables


# Protocol


def is_recurrent(group: Group) -> bool:
    """Whether its policy remembers anything."""
    return bool(CORES[group.config.policy_name].is_recurrent)


def horizon(group: Group) -> int:
    """Steps that gradient flowed through in training."""
    length = int(group.config.agent.rollout_steps)
    return length if group.config.policy.bptt_span is None else min(length, group.config.policy.bptt_span)


def rule_text(reset: str) -> str:
    """A reset rule in words."""
    words = {"episode": "at each episode's start", "never": "never"}
    return words.get(reset, f"every {reset} steps")


def _in_evaluation(group: Group) -> str:
    return str(group.config.policy.reset) if group.reset is None else group.reset


def protocol_notes(protocol: Protocol, groups: Iterable[Group]) -> tuple[str, ...]:
    """How the scores of `groups` were measured: actions, levels, memory, gradient horizon, number of runs."""
    chosen = "greedy (most likely) actions" if protocol.greedy else "sampled actions"
    if protocol.every_level:
        counting = "each level of a split exactly once"
    else:
        counting = f"{protocol.episodes} episodes of each game and split, levels drawn with replacement"
    return (
        f"{chosen}; {counting}; {protocol.mode} mode; evaluation seed {protocol.seed}.",
        *_memory_notes(groups),
        _count_note(groups),
    )


def _memory_notes(groups: Iterable[Group]) -> tuple[str, ...]:
    """Reset rule and gradient horizon of all groups, those that share them together."""
    shared: dict[str, list[str]] = {}
    for group in groups:
        if is_recurrent(group):
            trained, evaluated = str(group.config.policy.reset), _in_evaluation(group)
            text = f"memory reset {rule_text(evaluated)}"
            if evaluated != trained:
                text += f" in evaluation, {rule_text(trained)} in training"
            text += f", gradient horizon {horizon(group)} of {group.config.agent.rollout_steps} steps"
        else:
            text = "no memory"
        shared.setdefault(text, []).append(group.label)
    return tuple(f"{text}: {', '.join(labels)}." for text, labels in shared.items())


def _count_note(groups: Iterable[Group]) -> str:
    counts: dict[int, list[str]] = {}
    for group in groups:
        counts.setdefault(len(group.rows), []).append(group.label)
    texts = [f"{runs_text(count)}: {', '.join(labels)}" for count, labels in counts.items()]
    if len(texts) == 1:
        (count,) = counts
        return f"{runs_text(count)} of each." if count > 1 else "One seed of each: no intervals over runs."
    return f"{'; '.join(texts)}."


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


def interval_text(interval: Interval, digits: int = 3) -> str:
    """A number and, where there is one, its interval."""
    text = number(interval.value, digits)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def plus_minus(values: NDArray[np.float64], runs: int, digits: int = 2) -> str:
    """Mean ± standard error of `values`, without the latter where they come from a single run."""
    text = number(float(values.mean()), digits)
    error = standard_error(list(values.ravel())) if runs > 1 else None
    return text if error is None else f"{text} ± {number(error, digits)}"


# Tables


def runs_table(study: Study) -> Table:
    """What was compared."""
    rows = []
    for group in [*study.groups, *study.experts]:
        config = group.config
        steps = {run.config.total_steps for run in group.runs}
        memory = is_recurrent(group)
        rows.append(
            (
                group.label,
                config.policy_name,
                config.algorithm_name.upper(),
                "; ".join(f"{count:,}" for count in sorted(steps)),
                ", ".join(str(row.seed) for row in group.rows),
                rule_text(config.policy.reset) if memory else NOTHING,
                rule_text(_in_evaluation(group)) if memory else NOTHING,
                f"{horizon(group)} of {config.agent.rollout_steps}" if memory else NOTHING,
                ", ".join(group.games),
            )
        )
    header = (
        *("group", "policy", "algorithm", "steps", "seeds", "memory reset in training", "in evaluation"),
        *("gradient horizon", "games"),
    )
    first = study.groups[0].config
    notes = [
        f"{first.mode} mode, trained on levels {first.levels}.",
        *(f"{note}." for note in study.notes),
    ]
    return Table("runs", "Runs", header, tuple(rows), tuple(notes))


def unfinished_table(runs: Sequence[Run]) -> Table:
    """Runs that have no scores yet."""
    rows = tuple((run.name, f"{run.saved:,}", f"{run.config.total_steps:,}") for run in runs)
    note = "These runs have not made all their steps. They are in none of the other tables."
    return Table("unfinished", "Unfinished runs", ("run", "steps", "of"), rows, (note,))


def split_table(study: Study, splits: Sequence[str], key: str, title: str) -> Table:
    """Raw and normalised scores of each game; over several splits, their mean."""
    rows = []
    for game in study.protocol.games:
        cells = []
        for group in study.groups:
            raw = group.raw(game, splits)
            normalized = number(float(normalized_score(game, group.mode, raw.mean())), 3)
            cells.append(f"{plus_minus(raw, len(group.rows))} ({normalized})")
        rows.append((game, *cells))
    means = [plus_minus(group.normalized(splits).mean(1), len(group.rows), 3) for group in study.groups]
    rows.append(("all games, normalised", *means))
    over = "runs" if len(splits) == 1 else f"runs and the splits {', '.join(splits)}"
    notes = (
        f"Mean episode return ± standard error over {over}; in brackets (R - R_min) / (R_max - R_min). "
        "Last row: mean over games of the latter ± standard error over runs.",
        *protocol_notes(study.protocol, study.groups),
    )
    return Table(key, title, ("game", *map(heading, study.groups)), tuple(rows), notes)


def aggregate_table(study: Study) -> Table:
    """Interquartile mean and mean of normalised scores."""
    header = ["group"]
    for name in study.parts:
        header += [f"IQM, {name} levels", f"mean, {name} levels"]
    rows = []
    for group in study.groups:
        cells = [heading(group)]
        for splits in study.parts.values():
            scores = group.normalized(splits)
            for aggregate in (statistics.interquartile_mean, statistics.mean):
                cells.append(interval_text(statistics.with_interval(aggregate, scores)))
        rows.append(tuple(cells))
    notes = (
        "Interquartile mean (IQM) and mean over runs and games of normalised scores, with 95 % stratified bootstrap "
        "intervals over runs.",
        *protocol_notes(study.protocol, study.groups),
    )
    return Table("aggregates", "All games together", tuple(header), tuple(rows), notes)


def gap_table(study: Study) -> Table:
    """Normalised score on training levels minus that on unseen ones."""
    rows = []
    for group in study.groups:
        gap = group.normalized(study.seen) - group.normalized(study.unseen)
        each = [plus_minus(gap[:, index], len(gap), 3) for index in range(gap.shape[1])]
        rows.append((heading(group), plus_minus(gap.mean(1), len(gap), 3), *each))
    notes = (
        "Normalised score on training levels minus that on unseen levels, ± standard error over runs.",
        *protocol_notes(study.protocol, study.groups),
    )
    header = ("group", "all games", *study.protocol.games)
    return Table("generalisation-gap", "Generalisation gap", header, tuple(rows), notes)


def improvement_table(study: Study) -> Table:
    """Probability that a run of the row's group beats one of the column's."""
    splits = study.main_splits

    def cell(ours: Group, theirs: Group) -> str:
        if ours is theirs:
            return NOTHING
        interval = statistics.improvement_with_interval(
            ours.normalized(splits), theirs.normalized(splits), repetitions=2_000
        )
        return interval_text(interval, 2)

    rows = tuple((heading(ours), *(cell(ours, theirs) for theirs in study.groups)) for ours in study.groups)
    where = "unseen levels" if study.unseen else "training levels" if study.seen else "all splits"
    notes = (
        f"Probability that a run of the row's group scores higher than one of the column's on {where}, mean over "
        "games, with 95 % stratified bootstrap intervals. An interval that holds 0.5 decides nothing.",
        *protocol_notes(study.protocol, study.groups),
    )
    header = ("better than →", *(group.label for group in study.groups))
    return Table("improvement", "Probability of improvement", header, rows, notes)


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
            cells.append(plus_minus(ours.mean(1), len(group.rows), 3))
            if group is full:
                cells += [NOTHING, NOTHING]
            else:
                cells.append(interval_text(statistics.difference_with_interval(ours, theirs)))
                chance = statistics.improvement_with_interval(ours, theirs, repetitions=2_000)
                cells.append(interval_text(chance, 2))
        rows.append(tuple(cells))
    notes = (
        "Mean over games of the normalised score ± standard error over runs; its difference to the full model and "
        "the probability that a run beats one of the full model, with 95 % stratified bootstrap intervals.",
        *protocol_notes(study.protocol, study.groups),
    )
    return Table("ablations", f"Ablations against {full.label}", tuple(header), tuple(rows), notes)


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
        header += [f"multi-game, {name}", f"expert, {name}", "percent"]
    rows = []
    for group, expert in expert_pairs(study):
        for game in expert.games:
            cells = [group.label, game]
            for splits in study.parts.values():
                cells += _percent_cells(group, expert, game, splits)
            rows.append(tuple(cells))
    matched = [expert for _, expert in expert_pairs(study)]
    unmatched = [expert.label for expert in study.experts if expert not in matched]
    notes = (
        "Mean episode return ± standard error over runs and splits, with its normalised score; percent: normalised "
        f"score of the multi-game runs over that of the experts, {NOTHING} where the expert is no better than the "
        "trivial player (normalised score 0 or less).",
        f"Steps of training: {_steps_note(study)}.",
        *([f"No multi-game runs to hold against: {', '.join(unmatched)}."] if unmatched else []),
        *protocol_notes(study.protocol, [*study.groups, *study.experts]),
    )
    return Table("experts", "Multi-game runs against experts", tuple(header), tuple(rows), notes)


def percent_of_expert(group: Group, expert: Group, game: str, splits: Sequence[str]) -> float | None:
    """Normalised score of `group` on a game in percent of that of `expert`; None where that is 0 or less."""
    ours = float(group.normalized(splits, [game]).mean())
    theirs = float(expert.normalized(splits, [game]).mean())
    return 100 * ours / theirs if theirs > 0 else None


def _percent_cells(group: Group, expert: Group, game: str, splits: Sequence[str]) -> list[str]:
    cells = []
    for each in (group, expert):
        raw = each.raw(game, splits)
        normalized = number(float(normalized_score(game, each.mode, raw.mean())), 3)
        cells.append(f"{plus_minus(raw, len(each.rows))} ({normalized})")
    percent = percent_of_expert(group, expert, game, splits)
    return [*cells, NOTHING if percent is None else f"{number(percent, 0)} %"]


def _steps_note(study: Study) -> str:
    def steps(groups: Sequence[Group]) -> str:
        return ", ".join(
            f"{count:,}" for count in sorted({run.config.total_steps for g in groups for run in g.runs})
        )

    return (
        f"multi-game runs {steps(study.groups)} for all games together, experts {steps(study.experts)} each"
    )
