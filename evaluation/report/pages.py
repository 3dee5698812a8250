"""Tables and plots as Markdown, as one HTML page that needs nothing else, as CSV and as JSON."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from common.config import plain
from common.files import atomic_write
from evaluation.report import statistics
from evaluation.report.gather import Group, Study
from evaluation.report.plots import Plot
from evaluation.report.tables import Table, expert_pairs, percent_from_random, percent_of_expert

PLOTS = "plots"

_WORDS = ("runs", "unfinished", "continual-unfinished")
"""Tables of texts rather than of numbers."""


COMMON_TITLE = "Notes to several of these"
COMMON_ANCHOR = "notes"
SEE_COMMON = f"More under “{COMMON_TITLE}”."


@dataclass(frozen=True)
class CommonNotes:
    """Notes that are the same for several tables and plots.

    Attributes:
        titles: Whose they are.
        notes: A line each.
    """

    titles: tuple[str, ...]
    notes: tuple[str, ...]


def say_once(items: Sequence[Table | Plot]) -> tuple[list[Table | Plot], list[CommonNotes]]:
    """The items with the notes that are theirs alone, and the others by whose they are, each of them once."""
    titles: dict[str, tuple[str, ...]] = {}
    for item in items:
        for note in dict.fromkeys(item.notes):
            titles[note] = (*titles.get(note, ()), item.title)
    common = {note: whose for note, whose in titles.items() if len(whose) > 1}
    groups: dict[tuple[str, ...], tuple[str, ...]] = {}
    for note, whose in common.items():
        groups[whose] = (*groups.get(whose, ()), note)
    alone = []
    for item in items:
        own = tuple(note for note in item.notes if note not in common)
        if len(own) < len(item.notes):
            own = (*own, SEE_COMMON)
        alone.append(replace(item, notes=own))
    return alone, [CommonNotes(whose, notes) for whose, notes in groups.items()]


def markdown(title: str, introduction: Sequence[str], items: Sequence[Table | Plot]) -> str:
    """The report as Markdown, with the plots as files in the folder `PLOTS`."""
    items, common = say_once(items)
    parts = [f"# {title}", *introduction]
    for item in items:
        parts.append(f"## {item.title}")
        if isinstance(item, Plot):
            parts.append(f"![{item.title}]({PLOTS}/{item.key}.svg)")
        else:
            parts.append(_markdown_table(item))
        parts.append("\n".join(f"- {note}" for note in item.notes))
    if common:
        parts.append(f"## {COMMON_TITLE}")
    for group in common:
        parts.append(f"{', '.join(group.titles)}:")
        parts.append("\n".join(f"- {note}" for note in group.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    numbers = "" if table.key in _WORDS else ":"
    rule = ["---", *(f"---{numbers}" for _ in table.header[1:])]
    return "\n".join([line(table.header), f"| {' | '.join(rule)} |", *map(line, table.rows)])


def page(title: str, introduction: Sequence[str], items: Sequence[Table | Plot]) -> str:
    """The report as one HTML page, plots included, that opens without a network."""
    items, common = say_once(items)
    sections = []
    for item in items:
        body = _html_figure(item) if isinstance(item, Plot) else _html_table(item)
        sections.append(
            f'<section id="{_anchor(item)}"><h2>{html.escape(item.title)}</h2>\n{body}\n'
            f"{_html_notes(item.notes)}</section>"
        )
    links = [(_anchor(item), item.title) for item in items]
    if common:
        links.append((COMMON_ANCHOR, COMMON_TITLE))
        body = "\n".join(
            f"<p>{html.escape(', '.join(group.titles))}:</p>\n{_html_notes(group.notes)}" for group in common
        )
        sections.append(f'<section id="{COMMON_ANCHOR}"><h2>{COMMON_TITLE}</h2>\n{body}</section>')
    contents = "".join(f'<a href="#{anchor}">{html.escape(text)}</a>' for anchor, text in links)
    words = "".join(f"<p>{html.escape(text)}</p>\n" for text in introduction)
    template = resources.files("evaluation.report").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title), introduction=words, links=contents, sections="\n".join(sections)
    )


def _html_notes(notes: Sequence[str]) -> str:
    see = f'<a href="#{COMMON_ANCHOR}">{SEE_COMMON}</a>'
    lines = "".join(f"<li>{see if note == SEE_COMMON else html.escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _anchor(item: Table | Plot) -> str:
    return f"plot-{item.key}" if isinstance(item, Plot) else item.key


def _html_table(table: Table) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "\n".join(line("td", row) for row in table.rows)
    kind = ' class="words"' if table.key in _WORDS else ""
    head = line("th", table.header)
    return f'<div class="scroll"><table{kind}><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>'


def _html_figure(plot: Plot) -> str:
    # As a picture of its own, its ids cannot clash with those of another one.
    data = base64.b64encode(plot.svg.encode()).decode()
    return f'<figure><img alt="{html.escape(plot.title)}" src="data:image/svg+xml;base64,{data}"></figure>'


def ordered(tables: Sequence[Table], plots: Sequence[Plot]) -> list[Table | Plot]:
    """The plots follow the tables up to that of aggregates."""
    place = [table.key for table in tables].index("aggregates") + 1
    return [*tables[:place], *plots, *tables[place:]]


def score_rows(study: Study, group: Group) -> Iterator[dict[str, Any]]:
    """The scores of a group: one row for each seed, game and split."""
    for row in group.rows:
        for (game, split), score in row.scores.items():
            error = score.raw.standard_error
            yield {
                "group": group.label,
                "seed": row.seed,
                "game": game,
                "split": split,
                "levels": study.familiarity[split],
                "raw": score.raw.mean,
                "normalized": score.normalized.mean,
                "episodes": len(score.episodes),
                "raw_error_over_episodes": error if math.isfinite(error) else None,
            }


def scores_csv(study: Study) -> str:
    """The scores of all groups as CSV."""
    rows = [row for group in (*study.groups, *study.experts) for row in score_rows(study, group)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def report_json(study: Study | None, items: Sequence[Table | Plot], extra: dict[str, Any]) -> str:
    """All numbers as JSON text; `extra` are those of sequences and streams."""
    data = {} if study is None else _study_json(study)
    tables = {item.key: plain(item) for item in items if isinstance(item, Table)}
    return (
        json.dumps({**data, "tables": tables, **extra}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _study_json(study: Study) -> dict[str, Any]:
    parts = {"seen" if name == "training" else name: splits for name, splits in study.parts.items()}
    return {
        "protocol": {**study.protocol.to_json(), "seen": study.seen, "unseen": study.unseen},
        "groups": [_group_json(study, group, parts) for group in study.groups],
        "experts": [_group_json(study, group, {}) for group in study.experts],
        "percent_of_expert": [
            {
                "group": group.label,
                "expert": expert.label,
                "game": game,
                "levels": name,
                "percent": percent_of_expert(group, expert, game, splits),
                "percent_from_random": percent_from_random(group, expert, game, splits),
            }
            for group, expert in expert_pairs(study)
            for game in expert.games
            for name, splits in parts.items()
        ],
        "full_model": study.full.label if study.full is not None else None,
        "unfinished": [
            {"run": run.name, "steps": run.saved, "of": run.config.total_steps} for run in study.unfinished
        ],
        "notes": study.notes,
    }


def _group_json(study: Study, group: Group, parts: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    aggregates = {}
    for name, splits in parts.items():
        scores = group.normalized(splits)
        aggregates[name] = {
            "iqm": asdict(statistics.with_interval(statistics.interquartile_mean, scores)),
            "mean": asdict(statistics.with_interval(statistics.mean, scores)),
            "normalized": scores.tolist(),
        }
    return {
        "label": group.label,
        "runs": [run.name for run in group.runs],
        "seeds": [row.seed for row in group.rows],
        "steps": group.steps,
        "reset_in_training": group.agent.reset,
        "reset_in_evaluation": group.reset or group.agent.reset,
        "bptt_span": group.config.policy.bptt_span,
        "aggregates": aggregates,
        "scores": list(score_rows(study, group)),
    }


def write(out: Path, files: dict[str, str]) -> None:
    """Write `files` (paths below `out` and their text), each whole or not at all."""
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text)
