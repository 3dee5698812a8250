from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import figures
from benchmarks.figures import Figure, Part, best_seconds, measure, print_figures, write_figures
from common.errors import UserError


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


def test_the_best_time_of_each_part_and_turns() -> None:
    clock = 0.0
    durations = {"slow": iter([99.0, 5.0, 3.0, 4.0]), "fast": iter([99.0, 2.0, 2.5, 1.0])}
    order: list[str] = []

    def part(name: str) -> None:
        nonlocal clock
        order.append(name)
        clock += next(durations[name])

    parts = {name: lambda name=name: part(name) for name in durations}  # type: ignore[misc]
    best = best_seconds(parts, 3, lambda: clock)
    assert best == {"slow": 3.0, "fast": 1.0}  # the first call of each does not count
    assert order == ["slow", "fast"] * 4


def parts(clock: Callable[[str], object]) -> list[Part]:
    def run(name: str, figures: list[Figure]) -> list[Figure]:
        clock(name)
        return figures

    last = Figure("memory", "theirs", 1.5, aim=1.0, at_most=True)
    return [
        Part("speed: one", partial(run, "one", [Figure("one [a]", "bare", 2.0, aim=1.0)])),
        Part("speed: two", partial(run, "two", [])),
        Part("memory: three", partial(run, "three", [Figure("plain", "bare", 0.5), last])),
    ]


def test_what_is_measured_and_left_is_said_and_each_figure_at_once() -> None:
    screen = io.StringIO()
    seen: dict[str, list[str]] = {}
    figures = []
    for figure in measure(
        parts(lambda name: seen.update({name: screen.getvalue().splitlines()})),
        Console(file=screen, soft_wrap=True),
    ):
        figures.append(figure.name)
        assert screen.getvalue().splitlines()[-1].startswith(f"  {figure.name}: ")
    assert figures == ["one [a]", "plain", "memory"]
    assert seen["one"] == ["[1/3] speed: one   0:00 min, left: speed 1, memory 1"]
    assert seen["two"][1:] == [
        "  one [a]: 2.00 x bare, aim at least 1 (reached)",
        "[2/3] speed: two   0:00 min, left: memory 1",
    ]
    assert seen["three"][-1] == "[3/3] memory: three   0:00 min, left: nothing"
    assert screen.getvalue().splitlines()[-2:] == [
        "  plain: 0.50 x bare",
        "  memory: 1.50 x theirs, aim at most 1 (missed)",
    ]


def test_a_terminal_has_a_live_line() -> None:
    screen = io.StringIO()
    console = Console(file=screen, soft_wrap=True, force_terminal=True, width=100)
    list(measure(parts(lambda name: None), console))
    text = screen.getvalue()
    assert "[1/3] speed: one" in text
    assert "\x1b[2K" in text  # the line is written over
    assert "one [a]: 2.00 x bare" in text


def test_what_was_measured_is_shown_when_something_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> None:
        if name == "three":
            raise UserError("no such library")

    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py"])
    assert figures.main("Title", lambda quick: parts(fail)) == 2
    output, errors = capsys.readouterr()
    assert "Title" in output
    assert errors == "error: no such library\n"


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
    assert figures.main("Title", lambda quick: [Part("x", lambda: [Figure(f"quick {quick}", "b", 1.0)])]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["figures"][0]["name"] == "quick True"
