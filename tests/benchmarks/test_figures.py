from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import figures
from benchmarks.figures import Figure, best_seconds, print_figures, write_figures


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("a", "b", 0.9), None),
        (Figure("a", "b", 0.9, aim=0.9), True),
        (Figure("a", "b", 0.89, aim=0.9), False),
        (Figure("a", "b", 1.2, aim=1.0, at_most=True), False),
        (Figure("a", "b", 0.2, aim=1.0, at_most=True), True),
    ],
)
def test_aims(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_the_best_time_of_each_part_and_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    durations = {"slow": iter([99.0, 5.0, 3.0, 4.0]), "fast": iter([99.0, 2.0, 2.5, 1.0])}
    order: list[str] = []

    def part(name: str) -> None:
        nonlocal clock
        order.append(name)
        clock += next(durations[name])

    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    best = best_seconds({name: lambda name=name: part(name) for name in durations}, 3)  # type: ignore[misc]
    assert best == {"slow": 3.0, "fast": 1.0}  # the first call of each does not count
    assert order == ["slow", "fast"] * 4


def test_the_table_says_what_was_reached() -> None:
    screen = io.StringIO()
    rows = [
        Figure("speed", "theirs", 2.345, aim=2.0, facts={"ours steps/s": 1234.5}),
        Figure("memory", "theirs", 1.5, aim=1.0, at_most=True),
    ]
    print_figures("Title", rows, Console(file=screen, width=160))
    text = screen.getvalue()
    assert [line.split("│")[2:5] for line in text.splitlines() if "│" in line] == [
        ["  2.35 ", " at least 2 ", " yes "],
        ["  1.50 ", "  at most 1 ", "  no "],
    ]
    assert "ours steps/s 1,23" in text


def test_the_file_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x/benchmarks/network.py", "--quick"])
    monkeypatch.setattr(figures, "_module_and_words", lambda: ["benchmarks.network", "--quick"])
    write_figures(tmp_path / "f.json", [Figure("a", "b", 2.0, aim=1.0, facts={"x": 1.0})])
    record = json.loads((tmp_path / "f.json").read_text())
    assert record["command"] == "python -m benchmarks.network --quick"
    assert {"date", "processor", "cores", "threads", "torch"} <= set(record["machine"])
    assert record["figures"] == [
        {
            "name": "a",
            "against": "b",
            "ratio": 2.0,
            "aim": 1.0,
            "at_most": False,
            "facts": {"x": 1.0},
            "reached": True,
        }
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--treads", "1"], "unknown option '--treads': did you mean --threads?"),
        (["--threads", "x"], "--threads"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--json", "nowhere/f.json"], "there is no directory nowhere"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/environment.py", *words])
    assert figures.main("Title", lambda quick: pytest.fail("was measured")) == 2
    output, errors = capsys.readouterr()
    assert message in errors
    assert errors.count("\n") == 1
    assert output == ""


def test_the_options_reach_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--quick", "--json", str(tmp_path / "f.json")])
    assert figures.main("Title", lambda quick: [Figure(f"quick {quick}", "b", 1.0)]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["figures"][0]["name"] == "quick True"
