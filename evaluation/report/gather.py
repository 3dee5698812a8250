"""From run directories to matrices of scores: what can be compared, evaluated as far as it has not been."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import agents
from common.errors import UserError, raise_problems
from envs import normalized_score
from envs.levels import parse_levels
from evaluation.progress import Report, no_report
from evaluation.report.runs import Run, differing_settings
from evaluation.report.statistics import Scores
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.table import write_results
from records.directory import read_record

EVALUATIONS = "evaluations"
"""Folder of a run that keeps what reports have evaluated."""
Announce = Callable[[Run, str | None], Report]
"""Says that a run is evaluated under a reset rule (None: that of its training)."""


def silent(run: Run, reset: str | None) -> Report:
    """An `Announce` that says nothing."""
    return no_report


@dataclass(frozen=True)
class Score:
    """One game on one split, by one run.

    Attributes:
        raw: The mean episode return.
        error: Its standard error over episodes; None for a single episode.
        episodes: How many episodes were played.
    """

    raw: float
    error: float | None
    episodes: int


@dataclass(frozen=True)
class Row:
    """The scores of one seed.

    Attributes:
        seed: The seed of training.
        runs: One run that plays all games, or one for each game.
        scores: The scores by game and split.
    """

    seed: int
    runs: tuple[Run, ...]
    scores: Mapping[tuple[str, str], Score]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: Its name in tables and plots.
        games: The games that it has scores for.
        mode: The mode of the games.
        rows: The scores, one row for each seed.
        reset: The reset rule of the evaluation, where it is another one than that of training.
        name: The name of the group in its suite, "" without one.
    """

    label: str
    games: tuple[str, ...]
    mode: str
    rows: tuple[Row, ...]
    reset: str | None = None
    name: str = ""

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of its runs."""
        return tuple(run for row in self.rows for run in row.runs)

    @cached_property
    def config(self) -> Any:
        """The settings of its first run; the others differ in their seed, experts also in their game."""
        return self.runs[0].config

    def raw(self, game: str, splits: Sequence[str]) -> Scores:
        """Mean returns of a game (runs, splits)."""
        return np.array([[row.scores[game, split].raw for split in splits] for row in self.rows])

    def normalized(self, splits: Sequence[str], games: Sequence[str] | None = None) -> Scores:
        """Normalised scores (runs, games), each the mean over `splits`."""
        chosen = self.games if games is None else games
        columns = [normalized_score(game, self.mode, self.raw(game, splits).mean(1)) for game in chosen]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Study:
    """Everything that is reported.

    Attributes:
        protocol: How scores were measured, with the games of `groups`.
        seen: The splits that were trained on.
        unseen: The splits that were not.
        groups: The groups, which play the same games.
        experts: Single-game runs that multi-game runs are compared with.
        full: The group that others are ablations of.
        unfinished: Runs that have not made all their steps, and have no scores.
        notes: What else a reader has to know.
    """

    protocol: Protocol
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    groups: tuple[Group, ...]
    experts: tuple[Group, ...] = ()
    full: Group | None = None
    unfinished: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The splits of unseen and of training levels, where there are any."""
        both = {"unseen": self.unseen, "training": self.seen}
        return {name: splits for name, splits in both.items() if splits}

    @property
    def main_splits(self) -> tuple[str, ...]:
        """The unseen splits; the training levels, or else all, where there are none."""
        return self.unseen or self.seen or tuple(levels.name for levels in self.protocol.levels)


def gather(
    runs: Sequence[Run],
    protocol: Protocol | None = None,
    baseline: str | None = None,
    announce: Announce = silent,
) -> Study:
    """Compare `runs`, evaluating what has not been evaluated by `protocol` yet.

    Args:
        runs: finished ones are scored, the others are listed.
        protocol: of the evaluation, whose games do not matter; None for that of the runs' own final evaluation.
        baseline: label or name of the group that others are ablations of; None for what the suite says.
        announce: is called before each evaluation, and gives what its progress is reported to.

    Raises:
        UserError: the runs cannot be compared, with the reasons; none of them has finished; no such baseline.
        agents.CheckpointError: a checkpoint cannot be used.
    """
    unfinished = tuple(run for run in runs if not run.finished)
    finished = [run for run in runs if run.finished]
    if not finished:
        raise UserError(f"none of the runs has finished: {'; '.join(map(unfinished_line, unfinished))}")
    raise_problems(comparison_problems(finished))
    kept, notes = _without_repetitions(finished)
    chosen = protocol if protocol is not None else common_protocol(kept)
    multi = [run for run in kept if len(run.config.games) > 1]
    mains = multi or kept
    main_games = mains[0].config.games if multi else _union(kept)
    scorer = _Scorer(replace(chosen, games=main_games, mode=mains[0].config.mode), announce)
    groups = _groups(mains, scorer)
    groups += _reevaluated(groups, scorer)
    experts = _groups([run for run in kept if run not in mains], scorer, "expert")
    incomplete = [group for group in groups if group.games != main_games]
    if incomplete:
        raise UserError(
            "runs that play different games cannot be compared: "
            + "; ".join(f"{group.label} plays {', '.join(group.games)}" for group in groups)
        )
    seen, unseen = _seen_and_unseen(mains[0], scorer.protocol)
    return Study(
        scorer.protocol,
        seen,
        unseen,
        tuple(groups),
        tuple(experts),
        _full_model(groups, mains, baseline),
        unfinished,
        tuple(notes),
    )


def unfinished_line(run: Run) -> str:
    """How far a run is."""
    return f"{run.name} is at {run.saved:,} of {run.config.total_steps:,} steps"


def comparison_problems(runs: Sequence[Run]) -> list[str]:
    """Why `runs` cannot stand in one report, a line each."""
    found = []
    for what, name in (("mode", "mode"), ("training levels", "levels")):
        values: dict[str, Run] = {}
        for run in runs:
            values.setdefault(getattr(run.config, name), run)
        if len(values) > 1:
            listed = "; ".join(f"{run.name} has {value}" for value, run in values.items())
            found.append(f"runs of different {what} cannot be compared: {listed}: make one report for each")
    sets: dict[tuple[str, ...], Run] = {}
    for run in runs:
        if len(run.config.games) > 1:
            sets.setdefault(tuple(sorted(run.config.games)), run)
    if len(sets) > 1:
        listed = "; ".join(f"{run.name} plays {', '.join(games)}" for games, run in sets.items())
        found.append(f"runs of different games cannot be compared: {listed}: make one report for each")
    elif sets:
        (games,) = sets
        others = [run for run in runs if len(run.config.games) == 1 and run.config.games[0] not in games]
        found += [
            f"{run.name} cannot be compared: it plays {run.config.games[0]}, which is none of the games of the "
            f"multi-game runs ({', '.join(games)})"
            for run in others
        ]
    return found


def _without_repetitions(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Runs that differ from one another, and a note for each that was left out."""
    kept: dict[Any, Run] = {}
    notes = []
    for run in runs:
        first = kept.setdefault((run.kind, run.config.games, run.config.seed), run)
        if first is not run:
            notes.append(f"{run.name} repeats {first.name} (same settings, same seed) and was left out")
    return list(kept.values()), notes


def common_protocol(runs: Sequence[Run]) -> Protocol:
    """That of the final evaluation of all `runs`, or the paper's final test if they differ."""
    found = {
        (run.config.evaluation_splits, run.config.evaluation_episodes, run.config.evaluation_greedy)
        for run in runs
    }
    first = runs[0].config
    if len(found) == 1 and first.evaluation_episodes is not None:
        return Protocol(
            first.games,
            first.mode,
            first.evaluation_splits,
            first.evaluation_episodes,
            first.evaluation_greedy,
        )
    return Protocol(first.games, first.mode)


def _seen_and_unseen(run: Run, protocol: Protocol) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits within the training levels, and those apart from them."""
    training = parse_levels(run.config.levels, run.config.mode)
    seen, unseen = [], []
    for levels in protocol.levels:
        if levels == training:
            seen.append(levels.name)
        elif training.count and levels.count and not set(training.seeds) & set(levels.seeds):
            unseen.append(levels.name)
    return tuple(seen), tuple(unseen)


def _union(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(game for run in runs for game in run.config.games))


def _groups(runs: Sequence[Run], scorer: _Scorer, suffix: str = "") -> list[Group]:
    """`runs` by kind, in the order in which they were given."""
    kinds: dict[Any, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    labels = _labels(list(kinds.values()), suffix)
    order = {game: index for index, game in enumerate(scorer.protocol.games)}
    groups = []
    for label, members in zip(labels, kinds.values(), strict=True):
        seeds: dict[int, list[Run]] = {}
        for run in members:
            seeds.setdefault(run.config.seed, []).append(run)
        games = tuple(sorted(_union(members), key=lambda game: order.get(game, len(order))))
        rows = []
        for seed, same in sorted(seeds.items()):
            lacking = set(games) - set(_union(same))
            if lacking:
                raise UserError(
                    f"{label} has no finished run of {', '.join(sorted(lacking))} with seed {seed}: "
                    "finish it, or leave the other runs of that seed out"
                )
            scores = {key: score for run in same for key, score in scorer.scores(run).items()}
            rows.append(Row(seed, tuple(same), scores))
        groups.append(Group(label, games, members[0].config.mode, tuple(rows), name=members[0].group))
    return groups


def _labels(kinds: Sequence[Sequence[Run]], suffix: str) -> list[str]:
    """A label for each kind: the suite's, or policy and algorithm; with what tells two apart."""
    firsts = [members[0] for members in kinds]
    base = []
    for members in kinds:
        several = len(_union(members)) > 1 and len(members[0].config.games) == 1
        own = "" if several or suffix else members[0].label
        policy = " ".join(filter(None, [members[0].config.policy_name, suffix]))
        base.append(own or policy)
    labels = []
    for index, label in enumerate(base):
        twins = [other for other, text in enumerate(base) if text == label]
        if len(twins) > 1:
            differing = differing_settings([firsts[twin] for twin in twins])
            place = twins.index(index)
            label += f" ({', '.join(f'{name} {values[place]}' for name, values in differing.items())})"
        labels.append(label)
    return labels


def _reevaluated(groups: Sequence[Group], scorer: _Scorer) -> list[Group]:
    """The groups that are other groups, evaluated under another reset rule, as their suites say."""
    found = []
    for group in groups:
        record = read_record(group.runs[0].directory.path.parent) or {}
        for item in record.get("reevaluations", []):
            if item.get("of") != group.name or not group.name:
                continue
            rows = []
            for row in group.rows:
                scores = {
                    key: score for run in row.runs for key, score in scorer.scores(run, item["reset"]).items()
                }
                rows.append(Row(row.seed, row.runs, scores))
            found.append(
                Group(item["label"], group.games, group.mode, tuple(rows), item["reset"], item["group"])
            )
    return found


def _full_model(groups: Sequence[Group], runs: Sequence[Run], baseline: str | None) -> Group | None:
    if baseline is None:
        for run in runs:
            name = (read_record(run.directory.path.parent) or {}).get("full_model")
            for group in groups:
                if name is not None and group.name == name and run in group.runs:
                    return group
        return None
    for group in groups:
        if baseline in (group.label, group.name):
            return group
    raise UserError(
        f"no group is called {baseline!r}: there are {', '.join(group.label for group in groups)}"
    )


class _Scorer:
    """Gives the scores of runs, from files where they are known."""

    def __init__(self, protocol: Protocol, announce: Announce) -> None:
        raise_problems(protocol.problems())
        self.protocol, self._announce = protocol, announce

    def scores(self, run: Run, reset: str | None = None) -> dict[tuple[str, str], Score]:
        """By game and split; `reset` is a reset rule in place of the trained one."""
        wanted = replace(self.protocol, games=run.config.games, reset=reset)
        checkpoint = run.directory.newest_checkpoint()
        stored = stored_evaluation(run, checkpoint, wanted)
        if stored is None:
            agent = agents.load(checkpoint)
            results = evaluate(agent, wanted, self._announce(run, reset))
            path = cache_file(run, wanted)
            path.parent.mkdir(exist_ok=True)
            write_results(results, path, str(checkpoint))
            stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            (item["game"], item["split"]): Score(
                item["raw"]["mean"], item["raw"]["standard_error"], len(item["episodes"]["return"])
            )
            for item in stored["scores"]
        }


def cache_file(run: Run, protocol: Protocol) -> Path:
    """Where an evaluation by `protocol` is kept."""
    count = "every-level" if protocol.every_level else f"{protocol.episodes}"
    parts = ["greedy" if protocol.greedy else "sampled", count, *protocol.splits, f"seed{protocol.seed}"]
    if protocol.reset is not None:
        parts.append(f"reset-{protocol.reset}")
    return run.directory.path / EVALUATIONS / f"{'_'.join(parts).replace(':', '-')}.json"


def stored_evaluation(run: Run, checkpoint: Path, protocol: Protocol) -> dict[str, Any] | None:
    """The evaluation of `checkpoint` by `protocol`, if the run or an earlier report has made it."""
    names = [levels.name for levels in protocol.levels]
    wanted = {**asdict(protocol), "games": list(protocol.games), "splits": names}
    for path in (run.directory.evaluation_file, cache_file(run, protocol)):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (
            isinstance(data, dict)
            and data.get("protocol") == wanted
            and Path(data.get("checkpoint") or "").name == checkpoint.name
        ):
            return data
    return None
