"""Tables and curves say what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.memory.grid import Planned
from experiments.memory.report import CURVES, readings_table, rows, tables, write_page
from experiments.memory.results import Results
from experiments.memory.settings import Cell
from experiments.memory.training import Outcome, Window

CELL = Cell(task="copy")
OUTCOME = Outcome(1234, (Window(50, 0.25), Window(100, 0.5)), {"0.9": 93, "0.95": None}, 0.625, 0.375, 0.3)


def made(tmp_path: Path, seeds: int) -> tuple[list[Planned], Results]:
    results = Results(tmp_path)
    planned = [Planned("it", replace(CELL, seed=seed)) for seed in range(seeds)]
    for number, one in enumerate(planned):
        windows = (Window(50, 0.25 + 0.125 * number), *OUTCOME.windows[1:])
        results.add(one.cell, replace(OUTCOME, windows=windows, reached={"0.9": 90 + number, "0.95": None}))
    return planned, results


def test_a_table_has_each_seed_or_mean_and_range(tmp_path: Path) -> None:
    planned, results = made(tmp_path, 2)
    head, _, row = tables(rows(planned, results)).splitlines()[3:6]
    assert head == (
        "| core | parameters | to 50 | to 100 | end | twice as long | 0.9 after | 0.95 after | ms/update |"
    )
    assert (
        row == "| it | 1,234 | 0.25 / 0.38 | 0.50 / 0.50 | 0.62 / 0.62 | 0.38 / 0.38 | 90 / 91 | - / - | 3 |"
    )
    planned, results = made(tmp_path, 5)
    assert "| 0.50 (0.25-0.75) | 0.50 (0.50-0.50) |" in tables(rows(planned, results))


def test_what_was_not_made_is_left_out_and_tasks_stay_apart(tmp_path: Path) -> None:
    planned, results = made(tmp_path, 1)
    others = [Planned("other", CELL.__class__(task="cue-5")), Planned("more", replace(CELL, seed=9))]
    assert [row.label for row in rows([*others, *planned], results)] == ["it"]
    results.add(others[0].cell, OUTCOME)
    text = tables(rows([*others, *planned], results))
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## cue-5", "## copy"]


def test_where_training_ended_early_the_accuracy_stays(tmp_path: Path) -> None:
    planned, results = made(tmp_path, 2)
    early = replace(OUTCOME, windows=(Window(50, 0.75), Window(63, 1.0)))
    results.add(planned[0].cell, early)
    assert "| 0.75 / 0.38 | 1.00 / 0.50 |" in tables(rows(planned, results))


def test_long_training_shows_a_few_stretches_and_the_last(tmp_path: Path) -> None:
    results, one = Results(tmp_path), Planned("it", CELL)
    windows = tuple(Window(50 * number, number / 100) for number in range(1, 41))
    results.add(CELL, replace(OUTCOME, windows=windows))
    head = tables(rows([one], results)).splitlines()[3]
    assert [entry.strip() for entry in head.split("|")[3:9]] == [
        *("to 350", "to 650", "to 1000", "to 1350", "to 1650", "to 2000")
    ]


def test_the_page_shows_tables_and_curves(tmp_path: Path) -> None:
    planned, results = made(tmp_path, 2)
    page = write_page(tmp_path, "Title", rows(planned, results))
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert f"({CURVES})" in text
    assert (tmp_path / CURVES).read_text().count("<svg") == 1


def test_what_was_seen_in_cores_is_a_mean_over_layers_and_seeds_from_first_to_last(tmp_path: Path) -> None:
    results = Results(tmp_path)
    planned = [
        Planned("it", CELL),
        Planned("it", replace(CELL, seed=1)),
        Planned("blind", replace(CELL, seed=2)),
    ]
    for number, one in enumerate(planned[:2]):
        windows = (
            Window(50, 0.5, {"layer0/norm": 1.0 + number, "layer1/norm": 2.0 + number}),
            Window(70, 0.5, {"layer0/norm": 0.5, "layer1/norm": 0.25}),
        )
        results.add(one.cell, replace(OUTCOME, windows=windows))
    results.add(planned[2].cell, OUTCOME)
    every = rows(planned, results)
    assert readings_table(every).splitlines() == ["| core | norm |", "| --- | ---: |", "| it | 2 → 0.375 |"]
    page = write_page(tmp_path, "Title", every)
    assert "(inside-copy.svg)" in page.read_text()
    assert "norm" not in readings_table([row for row in every if row.label == "blind"])
    assert (tmp_path / "inside-copy.svg").exists()
