"""Tables and plots as Markdown, as one HTML page that needs nothing else, as CSV and as JSON."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import atomic_write
from envs import normalized_score
from evaluation.report import statistics
from evaluation.report.gather import Group, Study
from evaluation.report.plots import Plot
from evaluation.report.tables import Table, expert_pairs, percent_of_expert

PLOTS = "plots"

_CSS = """
:root { color-scheme: light; --line: #d8dce2; --soft: #f5f6f8; --text: #1d2129; --dim: #5b6472; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--text);
  margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
nav { columns: 3 14rem; font-size: .9rem; } nav a { display: block; color: #0b5cad; text-decoration: none; }
nav a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--soft); vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child, table.words td, table.words th { text-align: left; }
tbody tr:last-child td { border-bottom: 0; } tbody tr:hover { background: #fafbfc; }
table.words td { white-space: normal; }
.notes { color: var(--dim); font-size: .84rem; margin: .5rem 0 0; padding-left: 1.1rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
footer { margin-top: 3rem; color: var(--dim); font-size: .84rem; }
"""
_WORDS = ("runs", "unfinished")
"""Tables of texts rather than of numbers."""


def markdown(title: str, introduction: Sequence[str], tables: Sequence[Table], plots: Sequence[Plot]) -> str:
    """The report as Markdown, with the plots as files in the folder `PLOTS`."""
    parts = [f"# {title}", *introduction]
    for item in ordered(tables, plots):
        parts.append(f"## {item.title}")
        if isinstance(item, Plot):
            parts.append(f"![{item.title}]({PLOTS}/{item.key}.svg)")
        else:
            parts.append(_markdown_table(item))
        parts.append("\n".join(f"- {note}" for note in item.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    numbers = "" if table.key in _WORDS else ":"
    rule = ["---", *(f"---{numbers}" for _ in table.header[1:])]
    return "\n".join([line(table.header), f"| {' | '.join(rule)} |", *map(line, table.rows)])


def page(title: str, introduction: Sequence[str], tables: Sequence[Table], plots: Sequence[Plot]) -> str:
    """The report as one HTML page, plots included, that opens without a network."""
    items = ordered(tables, plots)
    sections = []
    for item in items:
        body = _html_figure(item) if isinstance(item, Plot) else _html_table(item)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in item.notes)
        listed = f'<ul class="notes">{notes}</ul>' if notes else ""
        sections.append(
            f'<section id="{_anchor(item)}"><h2>{html.escape(item.title)}</h2>\n{body}\n{listed}</section>'
        )
    links = "".join(f'<a href="#{_anchor(item)}">{html.escape(item.title)}</a>' for item in items)
    words = "".join(f"<p>{html.escape(text)}</p>\n" for text in introduction)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{words}<nav>{links}</nav>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _anchor(item: Table | Plot) -> str:
    return f"plot-{item.key}" if isinstance(item, Plot) else item.key


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    kind = ' class="words"' if table.key in _WORDS else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _html_figure(plot: Plot) -> str:
    # As a picture of its own, its ids cannot clash with those of another one.
    data = base64.b64encode(plot.svg.encode()).decode()
    return f'<figure><img alt="{html.escape(plot.title)}" src="data:image/svg+xml;base64,{data}"></figure>'


def ordered(tables: Sequence[Table], plots: Sequence[Plot]) -> list[Table | Plot]:
    """Each plot follows the table that it belongs to; the others follow the first tables."""
    owner = {"aggregates": "aggregates", "profiles": "aggregates", "stream": "stream"}
    found: list[Table | Plot] = []
    free = [plot for plot in plots if plot.key not in owner]
    for table in tables:
        found.append(table)
        found += [plot for plot in plots if owner.get(plot.key) == table.key]
        if table.key == "aggregates":
            found += free
    return found


def scores_csv(study: Study) -> str:
    """One line for each group, seed, game and split."""
    text = io.StringIO()
    columns = ["group", "seed", "game", "split", "levels", "raw", "normalized", "episodes"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "raw_error_over_episodes"])
    for group in [*study.groups, *study.experts]:
        for row in group.rows:
            for (game, split), score in row.scores.items():
                kind = "trained on" if split in study.seen else "unseen" if split in study.unseen else "mixed"
                normalized = float(normalized_score(game, group.mode, score.raw))
                error = "" if score.error is None else repr(score.error)
                place = [group.label, row.seed, game, split, kind]
                writer.writerow([*place, repr(score.raw), repr(normalized), score.episodes, error])
    return text.getvalue()


def report_json(study: Study, tables: Sequence[Table], extra: dict[str, Any]) -> dict[str, Any]:
    """All numbers as plain JSON values."""
    parts = {name: splits for name, splits in (("unseen", study.unseen), ("seen", study.seen)) if splits}
    return {
        "protocol": {
            "games": list(study.protocol.games),
            "mode": study.protocol.mode,
            "splits": [levels.name for levels in study.protocol.levels],
            "seen": list(study.seen),
            "unseen": list(study.unseen),
            "episodes": None if study.protocol.every_level else study.protocol.episodes,
            "every_level": study.protocol.every_level,
            "greedy": study.protocol.greedy,
            "seed": study.protocol.seed,
        },
        "groups": [_group_json(group, parts) for group in study.groups],
        "experts": [_group_json(group, {}) for group in study.experts],
        "percent_of_expert": [
            {
                "group": group.label,
                "expert": expert.label,
                "game": game,
                "levels": name,
                "percent": percent_of_expert(group, expert, game, splits),
            }
            for group, expert in expert_pairs(study)
            for game in expert.games
            for name, splits in parts.items()
        ],
        "full_model": study.full.label if study.full is not None else None,
        "unfinished": [
            {"run": run.name, "steps": run.saved, "of": run.config.total_steps} for run in study.unfinished
        ],
        "notes": list(study.notes),
        "tables": {
            table.key: {name: value for name, value in asdict(table).items() if name != "key"}
            for table in tables
        },
        **extra,
    }


def _group_json(group: Group, parts: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "label": group.label,
        "runs": [run.name for run in group.runs],
        "seeds": [row.seed for row in group.rows],
        "steps": sorted({run.config.total_steps for run in group.runs}),
        "reset_in_training": group.config.policy.reset,
        "reset_in_evaluation": group.config.policy.reset if group.reset is None else group.reset,
        "bptt_span": group.config.policy.bptt_span,
        "aggregates": {
            name: {
                "iqm": asdict(
                    statistics.with_interval(statistics.interquartile_mean, group.normalized(splits))
                ),
                "mean": asdict(statistics.with_interval(statistics.mean, group.normalized(splits))),
                "normalized": group.normalized(splits).tolist(),
            }
            for name, splits in parts.items()
        },
        "scores": [
            {"seed": row.seed, "game": game, "split": split, "raw": score.raw, "episodes": score.episodes}
            for row in group.rows
            for (game, split), score in row.scores.items()
        ],
    }


def write(out: Path, files: dict[str, str]) -> None:
    """Write `files` (paths below `out` and their text), each whole or not at all."""
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text)


def dumps(data: Any) -> str:
    """JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
