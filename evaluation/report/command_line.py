"""``python eval.py report RUNS... --out DIR``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console

from agents.distributed import joined
from agents.exchange import Exchange
from common.cli import Flag, Shown, parse_options
from common.config import OneOf
from common.config import problems as config_problems
from common.errors import UserError, raise_problems
from evaluation.progress import Report, show_progress
from evaluation.report import continual_pages, continual_study, pages
from evaluation.report.found_runs import find_runs
from evaluation.report.gather import Announce, Group, Study, common_protocol, gather, unfinished_line
from evaluation.report.plots import Plot, all_plots
from evaluation.report.runs import Run
from evaluation.report.stream import (
    default_protocol,
    gather_streams,
    stream_plot,
    stream_table,
    streams_json,
)
from evaluation.report.tables import Table, all_tables
from evaluation.scoring.protocol import Protocol
from evaluation.streams import DEFAULT_SPAN, RESET_CONDITIONS, StreamProtocol

PROGRAM = "python eval.py report"


_THEIRS = "that of the runs' final evaluation, or the paper's where they differ"


@dataclass(frozen=True)
class Options:
    """Compare runs: evaluate what has not been evaluated, and write tables, plots and numbers.

    Writes report.html (self-contained), report.md with plots/, scores.csv and report.json. Evaluations are kept in the
    runs, those of trained agents in runs/trained, so that a second report is quick. Runs of tasks one after another
    are compared by what they measured in their course, in pages of their own and in continual.csv.

    Attributes:
        runs: runs of train.py, directories that hold some, such as that of a suite, or trained agents by their names.
        out: directory to write to; files of an earlier report there are replaced.
        title: of the report.
        baseline: group that the others are ablations of.
        splits: levels to play.
        episodes: of each game and split.
        greedy: take the most likely action.
        sample: draw actions, as in training.
        every_level: play each level of a split exactly once.
        reset: also score policies with a memory under this reset rule: episode, never, or a number of steps.
        seed: of the levels and actions drawn.
        stream: also play streams of games, which takes as long as some hundred episodes for each run with a memory.
        task_duration: how long a stream stays with a game: "4 episodes", "2:6 episodes" (drawn) or "500 steps".
        streams: streams played side by side.
        tasks: scored tasks of each stream: games, from one switch to the next.
        span: steps after which the memory is cleared in one of the lines.
        normalizer: of tasks one after another: procgen, expert (runs of a single task) or ppo (published curves).
        cora: of tasks one after another: score the ends of stages as CORA does, by moving means over 20 evaluations.
    """

    runs: Annotated[tuple[str, ...], Shown("RUN ...")] = ()
    out: Annotated[str | None, Shown("DIR", "")] = None
    title: Annotated[str | None, Shown("TEXT", "the name of the suite")] = None
    baseline: Annotated[str | None, Shown("GROUP", "what the suite says")] = None
    splits: Annotated[tuple[str, ...], Shown("SPLIT ...", _THEIRS)] = ()
    episodes: Annotated[int | None, Shown("N", _THEIRS)] = None
    greedy: Flag = False
    sample: Flag = False
    every_level: Flag = False
    reset: Annotated[str | None, Shown("RULE", "")] = None
    seed: Annotated[int, Shown("N")] = 0
    stream: Flag = False
    task_duration: Annotated[str, Shown("TEXT")] = StreamProtocol.task_duration
    streams: Annotated[int, Shown("N")] = StreamProtocol.streams
    tasks: Annotated[int, Shown("N")] = StreamProtocol.tasks
    span: Annotated[int, Shown("N")] = int(DEFAULT_SPAN)
    normalizer: Annotated[str, OneOf(continual_study.NORMALIZERS, "normalizer"), Shown("NAME")] = "procgen"
    cora: Flag = False


def main(words: Sequence[str]) -> int:
    """Write the report that `words` ask for; returns the exit code.

    Raises:
        UserError: something that was asked for cannot be had, or the runs cannot be compared.
        OSError: a file cannot be written.
    """
    with joined() as exchange:
        options = exchange.together(lambda: parse_options(Options, words, PROGRAM, "runs"))
        return _report(options, words, exchange)


def _report(options: Options, words: Sequence[str], exchange: Exchange) -> int:
    """Processes share the evaluations; process 0 does the rest."""
    runs, protocol, out = exchange.together(lambda: prepare(options))
    if exchange.size > 1:
        torch.set_num_threads(exchange.place.cores)
    console = Console(highlight=False, markup=False)
    sequences = [run for run in runs if run.config.sequence.active]
    others = [run for run in runs if not run.config.sequence.active]
    compared: continual_study.ContinualStudy | None = None
    if sequences:
        # The name of a baseline is that of one kind or of the other.
        baseline = None if others else options.baseline
        compared = exchange.together(
            lambda: continual_study.gather(
                sequences, normalizer=options.normalizer, cora=options.cora, baseline=baseline
            )
        )
    study = _study(others, protocol, options, console, exchange) if others else None
    if exchange.is_first:
        _write(runs, out, compared, study, options, words, console)
    return 0


def _write(
    runs: Sequence[Run],
    out: Path,
    compared: continual_study.ContinualStudy | None,
    study: Study | None,
    options: Options,
    words: Sequence[str],
    console: Console,
) -> None:
    items: list[Table | Plot] = []
    introduction: list[str] = []
    files: dict[str, str] = {}
    extra: dict[str, Any] = {}
    if compared is not None:
        introduction += _continual_introduction(compared)
        items += continual_pages.all_items(compared)
        files["continual.csv"] = continual_pages.continual_csv(compared)
        extra["continual"] = continual_pages.continual_json(compared)
    if study is not None:
        introduction += _introduction(study)
        more, stream = _items(study, options, console)
        items += more
        extra |= stream
        files["scores.csv"] = pages.scores_csv(study)
    introduction.append(f"Made by: {shlex.join([*PROGRAM.split(), *words])}")
    title = options.title or _title(runs)
    files = {
        "report.html": pages.page(title, introduction, items),
        "report.md": pages.markdown(title, introduction, items),
        **files,
        "report.json": pages.report_json(study, items, extra),
        **{f"{pages.PLOTS}/{plot.key}.svg": plot.svg for plot in items if isinstance(plot, Plot)},
    }
    pages.write(out, files)
    _show(
        items,
        () if study is None else study.unfinished,
        [name for name in files if "/" not in name],
        out,
        console,
    )


def _announce(console: Console) -> Announce:
    @contextmanager
    def announce(run: Run, reset: str | None) -> Iterator[Report]:
        how = "" if reset is None else f", memory reset: {reset}"
        console.print(f"Evaluating {run.name}{how}", soft_wrap=True)
        with show_progress(console, "evaluating", "episodes") as report:
            yield report

    return announce


def _study(
    runs: Sequence[Run], protocol: Protocol | None, options: Options, console: Console, exchange: Exchange
) -> Study:
    return gather(runs, protocol, options.baseline, _announce(console), exchange, options.reset)


def _items(study: Study, options: Options, console: Console) -> tuple[list[Table | Plot], dict[str, Any]]:
    """What is said of runs that play all their games at once, and what of it goes into report.json besides."""
    items = pages.ordered(all_tables(study), all_plots(study))
    if not options.stream:
        return items, {}
    streams = replace(
        default_protocol(study),
        task_duration=options.task_duration,
        streams=options.streams,
        tasks=options.tasks,
        reset_conditions=(*RESET_CONDITIONS, str(options.span)),
    )
    scores = gather_streams(study, streams, _announce(console))
    return [*items, stream_table(scores), stream_plot(scores)], {"stream": streams_json(scores)}


def prepare(options: Options) -> tuple[list[Run], Protocol | None, Path]:
    """The runs, how to score them (None: as they were scored at their ends), and where to write.

    Raises:
        UserError: naming everything that is wrong with the options.
    """
    problems = []
    if not options.runs:
        problems.append(f"no runs: {PROGRAM} RUN ... --out DIR")
    if options.out is None:
        problems.append("nowhere to write to: give --out DIR")
    if options.greedy and options.sample:
        problems.append("--greedy and --sample contradict each other: give one of them")
    raise_problems([*config_problems(options, "--"), *problems])
    assert options.out is not None
    out = Path(options.out)
    existing = next(path for path in [out, *out.absolute().parents] if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out {out} cannot be written: {existing} is a file; name a directory")
    if not os.access(existing, os.W_OK):
        raise UserError(f"--out {out} cannot be written: {existing} is read-only; choose another directory")
    runs = find_runs(options.runs)
    names = ("splits", "episodes", "greedy", "sample", "every_level", "seed")
    if all(getattr(options, name) == getattr(Options(), name) for name in names):
        return runs, None, out
    base = common_protocol([run for run in runs if not run.config.sequence.active] or runs)
    protocol = replace(
        base,
        splits=options.splits or base.splits,
        episodes=base.episodes if options.episodes is None else options.episodes,
        greedy=(base.greedy or options.greedy) and not options.sample,
        every_level=options.every_level,
        seed=options.seed,
    )
    raise_problems(protocol.problems())
    return runs, protocol, out


def _title(runs: Sequence[Run]) -> str:
    names: dict[str, None] = {}
    for suite in (run.suite for run in runs if run.suite):
        scale = suite.get("scale", 1)
        names[str(suite.get("suite")) + (f" at scale {scale:g}" if scale != 1 else "")] = None
    return f"Report on {', '.join(names)}" if names else "Report"


def _continual_introduction(study: continual_study.ContinualStudy) -> list[str]:
    """What is compared, in a sentence."""
    first = study.methods[0].first
    stages = first.stages
    count = len(study.methods)
    return [
        f"{count} method{'s' * (count > 1)} on {len(study.tasks)} tasks one after another "
        f"({', '.join(map(str, study.tasks))}), {len(stages)} stages of {stages[-1].steps:,} environment steps."
    ]


def _introduction(study: Study) -> list[str]:
    """What is compared, and how far it can be trusted, in a few sentences."""

    def steps(groups: Sequence[Group]) -> str:
        found = sorted({count for group in groups for count in group.steps})
        return f"{' and '.join(f'{count:,}' for count in found)} environment steps of training each"

    games, number = study.protocol.games, len(study.groups)
    counts = [len(group.rows) for group in (*study.groups, *study.experts)]
    experts = f", and experts of one game, {steps(study.experts)}" if study.experts else ""
    text = [
        f"{number} group{'s' * (number > 1)} of runs on {', '.join(games)} ({study.protocol.mode} mode), "
        f"{steps(study.groups)}{experts}."
    ]
    if 1 in counts:
        text.append("With one seed, nothing can be said about how another seed would have done.")
    if few := [count for count in counts if 1 < count < 5]:
        text.append(
            f"With {min(few)} runs, intervals are rough: a bootstrap can only draw the values that were seen, and is "
            "too narrow for so few. Differences within them, and many a little beyond, mean nothing."
        )
    if study.unfinished:
        text.append("Unfinished: " + "; ".join(map(unfinished_line, study.unfinished)) + ".")
    return text


def _show(
    items: Sequence[Table | Plot],
    unfinished: Sequence[Run],
    names: Sequence[str],
    out: Path,
    console: Console,
) -> None:
    """The most important numbers, and where the rest is."""
    tables = [item for item in items if isinstance(item, Table)]
    main = next((table for table in tables if table.key == "aggregates"), tables[0])
    width = max(len(row[0]) for row in main.rows)
    console.print(f"\n{main.header[1] if len(main.header) > 1 else ''}:", soft_wrap=True)
    for row in main.rows:
        console.print(f"  {row[0]:{width}}  {row[1] if len(row) > 1 else ''}", soft_wrap=True)
    for run in unfinished:
        console.print(f"unfinished: {unfinished_line(run)}", soft_wrap=True)
    for name in names:
        console.print(f"  {out / name}", soft_wrap=True)
