"""From run directories to matrices of scores: what can be compared, evaluated as far as it has not been."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agents.exchange import Exchange
from common.errors import UserError, raise_problems
from common.files import read_json
from envs import normalized_score
from envs.levels import parse_levels
from evaluation.agent_info import AgentInfo, familiarity, reset_text
from evaluation.loading import load_to_play
from evaluation.progress import Report, no_report
from evaluation.report.runs import Run, differing_settings
from evaluation.report.statistics import Scores
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import GameScore, Results, write_results
from evaluation.scoring.shared import evaluate_together
from records.config import TrainConfig

Announce = Callable[[Run, str | None], AbstractContextManager[Report]]
"""Says that a run is evaluated under a reset rule (None: that of its training), and shows how far that is."""

Score = Callable[[Run, Protocol], Results]
"""What a run scores."""

Item = TypeVar("Item")
Key = TypeVar("Key")


def silent(run: Run, reset: str | None) -> AbstractContextManager[Report]:
    """An `Announce` that says nothing."""
    return contextlib.nullcontext(no_report)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """`items` by what `key` says of them, in the order in which they come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclass(frozen=True)
class Row:
    """What came of one seed of training: one run that plays all games, or one for each game, and their results."""

    seed: int
    runs: tuple[Run, ...]
    results: tuple[Results, ...]

    @cached_property
    def scores(self) -> dict[tuple[str, str], GameScore]:
        """The scores by game and split."""
        scores = (score for results in self.results for score in results.scores)
        return {(score.game, score.levels.name): score for score in scores}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, one row for each.

    Attributes:
        label: Its name in tables and plots; `name` is that in its suite, "" without one.
        games: The games that it has scores for.
    """

    label: str
    name: str
    games: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of its runs."""
        return tuple(run for row in self.rows for run in row.runs)

    @property
    def config(self) -> TrainConfig:
        """The settings of its first run; the others differ in their seed, experts also in their game."""
        return self.runs[0].config

    @property
    def agent(self) -> AgentInfo:
        """The agent of its first run."""
        return self.rows[0].results[0].agent

    @property
    def reset(self) -> str | None:
        """The reset rule of the evaluation, where it is another one than that of training."""
        return self.rows[0].results[0].protocol.reset

    @property
    def steps(self) -> list[int]:
        """Environment steps of training."""
        return sorted({run.steps for run in self.runs})

    def raw(self, game: str, splits: Sequence[str]) -> Scores:
        """Mean returns of a game (runs, splits)."""
        return np.array([[row.scores[game, split].raw.mean for split in splits] for row in self.rows])

    def normalized(self, splits: Sequence[str], games: Sequence[str] | None = None) -> Scores:
        """Normalised scores (runs, games), each the mean over `splits`."""
        chosen = self.games if games is None else games
        columns = [
            normalized_score(game, self.config.mode, self.raw(game, splits).mean(1)) for game in chosen
        ]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Study:
    """Everything that is reported.

    Attributes:
        protocol: How scores were measured, with the games of `groups`.
        familiarity: By name of a split, whether it was trained on, as `agent_info.familiarity` says it.
        groups: What is compared; all play the same games.
        experts: Single-game runs that multi-game runs are compared with.
        full: The group that others are ablations of.
        unfinished: Runs that have not made all their steps, and have no scores.
        notes: What else a reader has to know.
    """

    protocol: Protocol
    familiarity: Mapping[str, str]
    groups: tuple[Group, ...]
    experts: tuple[Group, ...] = ()
    full: Group | None = None
    unfinished: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def seen(self) -> tuple[str, ...]:
        """The splits that were trained on."""
        return tuple(split for split, kind in self.familiarity.items() if kind == "trained on")

    @property
    def unseen(self) -> tuple[str, ...]:
        """The splits that share no level with those that were trained on."""
        return tuple(split for split, kind in self.familiarity.items() if kind == "unseen")

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The splits of unseen and of training levels, where there are any."""
        both = {"unseen": self.unseen, "training": self.seen}
        return {name: splits for name, splits in both.items() if splits}

    @property
    def main_splits(self) -> tuple[str, ...]:
        """The unseen splits; the training levels, or else all, where there are none."""
        return self.unseen or self.seen or tuple(self.familiarity)


def gather(
    runs: Sequence[Run],
    protocol: Protocol | None = None,
    baseline: str | None = None,
    announce: Announce = silent,
    exchange: Exchange | None = None,
    reset: str | None = None,
) -> Study:
    """Compare `runs`, evaluating what has not been evaluated by `protocol` yet.

    Args:
        runs: finished ones are scored, the others are listed.
        protocol: of the evaluation, whose games do not matter; None for that of the runs' own final evaluation.
        baseline: label or name of the group that others are ablations of; None for what the suite says.
        announce: is called before each evaluation, and gives what its progress is reported to.
        exchange: with the processes that share the evaluations, all of which call this; None to evaluate alone.
        reset: a reset rule under which groups with a memory are scored besides; None for what their suites say alone.

    Raises:
        UserError: the runs cannot be compared, with the reasons; none of them has finished; no such baseline or rule.
        CheckpointError: a checkpoint cannot be used.
    """
    unfinished = tuple(run for run in runs if not run.finished)
    finished = [run for run in runs if run.finished]
    if not finished:
        raise UserError(f"none of the runs has finished: {'; '.join(map(unfinished_line, unfinished))}")
    raise_problems(comparison_problems(finished))
    kept, notes = _without_repetitions(finished)
    chosen = protocol or common_protocol(kept)
    multi = [run for run in kept if len(run.config.games) > 1]
    mains = multi or kept
    main_games = mains[0].config.games if multi else _union(kept)
    first = mains[0].config
    protocol = replace(chosen, games=main_games, mode=first.mode, twist=first.twist)
    raise_problems(replace(protocol, reset=reset).problems())
    score = partial(_results, announce=announce, exchange=Exchange() if exchange is None else exchange)
    # All of it is planned before anything is scored, which can take long.
    planned = _plan_groups(mains, main_games)
    if any(group.games != main_games for group in planned):
        raise UserError(
            "runs that play different games cannot be compared: "
            + "; ".join(f"{group.label} plays {', '.join(group.games)}" for group in planned)
            + ": name runs that play the same ones"
        )
    planned_experts = _plan_groups([run for run in kept if run not in mains], main_games, "expert")
    groups = [group.scored(protocol, score) for group in planned]
    groups += _reevaluated(groups, reset, protocol, score)
    experts = [group.scored(protocol, score) for group in planned_experts]
    training = parse_levels(mains[0].config.levels, mains[0].config.mode)
    kinds = {levels.name: familiarity(levels, training) for levels in protocol.levels}
    full = _full_model(groups, baseline)
    return Study(protocol, kinds, tuple(groups), tuple(experts), full, unfinished, tuple(notes))


def unfinished_line(run: Run) -> str:
    """How far a run is."""
    return f"{run.name} is at {run.saved:,} of {run.config.total_steps:,} steps"


def comparison_problems(runs: Sequence[Run]) -> list[str]:
    """Why `runs` cannot stand in one report, a line each."""
    found = []
    multi = [run for run in runs if len(run.config.games) > 1]
    sets = grouped(multi, lambda run: ", ".join(sorted(run.config.games)))
    for what, verb, kinds in (
        ("mode", "has", grouped(runs, lambda run: run.config.mode)),
        ("training levels", "has", grouped(runs, lambda run: run.config.levels)),
        ("twist", "has", grouped(runs, lambda run: run.config.twist or "none")),
        ("games", "plays", sets),
    ):
        if len(kinds) > 1:
            listed = "; ".join(f"{members[0].name} {verb} {value}" for value, members in kinds.items())
            found.append(f"runs of different {what} cannot be compared: {listed}: make one report for each")
    if len(sets) == 1:
        found += [
            f"{run.name} cannot be compared: it plays {run.config.games[0]}, which is none of the games of the "
            f"multi-game runs ({', '.join(sets)})"
            for run in runs
            if not set(run.config.games) <= set(multi[0].config.games)
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
    splits, episodes, greedy = found.pop()
    if found or episodes is None:
        return Protocol(first.games, first.mode, twist=first.twist)
    return Protocol(first.games, first.mode, splits, episodes, greedy, twist=first.twist)


def _union(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(game for run in runs for game in run.config.games))


@dataclass(frozen=True)
class _PlannedGroup:
    """A `Group` whose runs have not been scored."""

    label: str
    name: str
    games: tuple[str, ...]
    runs: Mapping[int, Sequence[Run]]

    def scored(self, protocol: Protocol, score: Score) -> Group:
        rows = [
            Row(seed, tuple(same), tuple(score(run, protocol) for run in same))
            for seed, same in self.runs.items()
        ]
        return Group(self.label, self.name, self.games, tuple(rows))


def _plan_groups(runs: Sequence[Run], games: Sequence[str], suffix: str = "") -> list[_PlannedGroup]:
    """`runs` by kind, in the order in which they were given; games in the order of `games`."""
    kinds = list(grouped(runs, lambda run: run.kind).values())
    groups = []
    for label, members in zip(_labels(kinds, suffix), kinds, strict=True):
        own = tuple(game for game in games if game in _union(members))
        by_seed = dict(sorted(grouped(members, lambda run: run.config.seed).items()))
        for seed, same in by_seed.items():
            if lacking := set(own) - set(_union(same)):
                raise UserError(
                    f"{label} has no finished run of {', '.join(sorted(lacking))} with seed {seed}: "
                    "finish it, or leave the other runs of that seed out"
                )
        groups.append(_PlannedGroup(label, members[0].group, own, by_seed))
    return groups


def _one_game_each(runs: Sequence[Run]) -> bool:
    return len(_union(runs)) > 1 and len(runs[0].config.games) == 1


def _labels(kinds: Sequence[Sequence[Run]], suffix: str) -> list[str]:
    """A label for each kind: the suite's, or the policy; with what tells two apart."""
    base = []
    for members in kinds:
        first = members[0]
        own = first.label_without_game if suffix or _one_game_each(members) else first.label
        base.append(f"{own or first.config.policy_name} {suffix}".strip())
    labels = []
    for index, label in enumerate(base):
        twins = [twin for twin, text in enumerate(base) if text == label]
        if len(twins) > 1:
            differing = differing_settings([kinds[twin][0] for twin in twins])
            place = twins.index(index)
            label += f" ({', '.join(f'{name} {values[place]}' for name, values in differing.items())})"
        labels.append(label)
    return labels


def _suite_reevaluations(group: Group) -> list[tuple[str, str, str]]:
    """Label, name and reset rule of what the suite of a group evaluates it as besides; each rule once."""
    names = {run.group for run in group.runs} - {""}
    found: dict[str, tuple[str, str, str]] = {}
    for item in group.runs[0].suite.get("reevaluations", []):
        if item.get("of") in names:
            rule = item["reset"]
            whole = f"{group.label}, memory reset {reset_text(rule)}"
            found.setdefault(
                rule, (whole if _one_game_each(group.runs) else item["label"], item["group"], rule)
            )
    return list(found.values())


def _reevaluated(groups: Sequence[Group], reset: str | None, protocol: Protocol, score: Score) -> list[Group]:
    """The groups that are others, evaluated under another reset rule: as their suites say, or as was asked for."""
    found = []
    for group in groups:
        listed = _suite_reevaluations(group)
        rules = {group.config.policy.reset, *(rule for _, _, rule in listed)}
        if reset is not None and group.agent.recurrent and reset not in rules:
            listed.append((f"{group.label}, memory reset {reset_text(reset)}", "", reset))
        for label, name, rule in listed:
            other = replace(protocol, reset=rule)
            rows = [replace(row, results=tuple(score(run, other) for run in row.runs)) for row in group.rows]
            found.append(Group(label, name, group.games, tuple(rows)))
    return found


def _full_model(groups: Sequence[Group], baseline: str | None) -> Group | None:
    if baseline is None:
        full = [
            group for group in groups if group.name and group.name == group.runs[0].suite.get("full_model")
        ]
        return full[0] if full else None
    for group in groups:
        if baseline in (group.label, group.name):
            return group
    raise UserError(
        f"no group is called {baseline!r}: there are {', '.join(group.label for group in groups)}"
    )


def _results(run: Run, protocol: Protocol, announce: Announce, exchange: Exchange) -> Results:
    """What `run` scores by `protocol`, from a file where that is known."""
    wanted = replace(protocol, games=run.config.games)
    checkpoint = run.checkpoint
    # Process 0 writes such files: only it knows for all which there are.
    if exchange.on_first(lambda: stored_evaluation(run, checkpoint, wanted) is not None):
        stored = stored_evaluation(run, checkpoint, wanted)
        assert stored is not None
        return stored
    agent = load_to_play(checkpoint, exchange.place.device("auto"))
    with announce(run, wanted.reset) as report:
        results = evaluate_together(agent, wanted, exchange, report)
    if exchange.is_first:
        path = cache_file(run, wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_results(results, path, str(checkpoint))
    return results


def cache_file(run: Run, protocol: Protocol) -> Path:
    """Where an evaluation by `protocol` is kept."""
    count = "every-level" if protocol.every_level else str(protocol.episodes)
    parts = ["greedy" if protocol.greedy else "sampled", count, *protocol.splits, f"seed{protocol.seed}"]
    if protocol.reset is not None:
        parts.append(f"reset-{protocol.reset}")
    return named_file(run, parts)


def named_file(run: Run, parts: Sequence[str]) -> Path:
    """The file among the evaluations of a run that `parts` name."""
    return run.evaluations / f"{'_'.join(parts).replace(' ', '-').replace(':', '-')}.json"


def stored_evaluation(run: Run, checkpoint: Path, protocol: Protocol) -> Results | None:
    """The evaluation of `checkpoint` by `protocol`, if the run or an earlier report has made it."""
    for path in (run.directory.evaluation_file, cache_file(run, protocol)):
        stored = read_stored(path, checkpoint, protocol.to_json())
        if stored is not None:
            with contextlib.suppress(KeyError, TypeError):  # of another version of this project
                return Results.from_json(stored)
    return None


def read_stored(path: Path, checkpoint: Path, protocol: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a file holds, if it is an evaluation of `checkpoint` by `protocol`."""
    try:
        data = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or _given(data.get("protocol")) != _given(protocol):
        return None
    return data if Path(data.get("checkpoint") or "").name == checkpoint.name else None


def _given(protocol: Any) -> Any:
    """What a protocol says; that of an older version leaves out what it did not know, which none stands for now."""
    if not isinstance(protocol, Mapping):
        return None
    return {name: value for name, value in protocol.items() if value is not None}
