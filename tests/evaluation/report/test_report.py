"""Reports as users make them."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.files import write_json
from envs import Task
from evaluation.report import statistics, stream
from evaluation.report.command_line import main
from evaluation.report.gather import Study, gather
from evaluation.report.pages import SEE_COMMON, markdown, ordered, page, say_once
from evaluation.report.plots import all_plots, common_curve, published_curve
from evaluation.report.random_player import random_return
from evaluation.report.runs import Run
from evaluation.report.tables import (
    MINUS,
    NOTHING,
    Table,
    all_tables,
    number,
    percent_from_random,
    percent_of_expert,
    plus_minus,
)
from evaluation.streams import StreamEpisode, StreamProtocol

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere."""
    with_interval = statistics.with_interval
    monkeypatch.setattr(
        statistics,
        "with_interval",
        lambda aggregate, *scores, repetitions=30: with_interval(aggregate, *scores, repetitions=30),
    )


def score(level: float) -> Callable[[str, str], Sequence[float]]:
    """Returns whose normalised score is `level` on training levels and 0.1 less on the others, in both games."""

    def returns(game: str, split: str) -> Sequence[float]:
        here = level if split == "train" else level - 0.1
        value = 1 + 39 * here if game == "bigfish" else 5 + 5 * here
        return [value, value]

    return returns


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    found = [make_run(f"s/srwm-seed{n}", score(level), seed=n) for n, level in enumerate((0.4, 0.6))]
    found += [
        make_run(f"s/lstm-seed{n}", score(level), seed=n, policy="lstm") for n, level in enumerate((0.1, 0.3))
    ]
    found.append(make_run("s/once-seed0", score(0.2), policy="feedforward"))
    found += [make_run(f"s/{game}-seed0", score(0.5), games=[game]) for game in ("bigfish", "maze")]
    found.append(make_run("s/half-seed9", finished=False, seed=9))
    write_json(
        found[0].directory.path.parent / "suite.json",
        {
            "suite": "mine",
            "scale": 0.5,
            "full_model": "srwm",
            "groups": [{"group": group, "label": ""} for group in ("srwm", "lstm", "once")],
            "reevaluations": [],
        },
    )
    return found


@pytest.fixture
def study(runs: list[Run]) -> Study:
    return gather(runs)


def table(study: Study, key: str) -> Table:
    (found,) = [item for item in all_tables(study) if item.key == key]
    return found


def row(item: Table, start: str) -> tuple[str, ...]:
    (found,) = [cells for cells in item.rows if cells[0].startswith(start)]
    return found


def test_tables_hold_what_was_worked_out_by_hand(study: Study) -> None:
    seen = table(study, "seen")
    assert seen.header == ("game", "srwm (2 runs)", "lstm (2 runs)", "feedforward (one seed)")
    # bigfish: 16.6 and 24.4, standard error 7.8 / 2.
    assert row(seen, "bigfish") == ("bigfish", "20.50 ± 3.90 (0.500)", "8.80 ± 3.90 (0.200)", "8.80 (0.200)")
    assert row(seen, "all games")[1:] == ("0.500 ± 0.100", "0.200 ± 0.100", "0.200")
    unseen = table(study, "unseen")
    assert row(unseen, "maze")[1] == "7.00 ± 0.29 (0.400)"  # 6.5, 6.5, 7.5, 7.5: two runs on two splits
    assert row(table(study, "split-test2"), "maze")[1] == "7.00 ± 0.50 (0.400)"
    gap = table(study, "generalisation-gap")
    assert row(gap, "srwm") == ("srwm (2 runs)", *3 * ("0.100 ± 0.000",))
    assert row(gap, "feedforward")[1] == "0.100"
    improvement = table(study, "improvement")
    assert row(improvement, "srwm")[1:3] == (NOTHING, "1.00 [1.00, 1.00]")
    assert row(improvement, "lstm")[3] == "0.50"
    aggregates = table(study, "aggregates")
    assert row(aggregates, "srwm")[1] == "0.400 [0.300, 0.500]"
    assert row(aggregates, "feedforward")[1:] == ("0.100", "0.100", "0.200", "0.200")


def test_experts_in_percent(study: Study) -> None:
    experts = table(study, "experts")
    assert [cells[:2] for cells in experts.rows] == [("srwm", "bigfish"), ("srwm", "maze")]
    # test2 is among the unseen splits, and what random actions give there was not measured.
    assert experts.rows[0][2:6] == ("16.60 ± 2.25 (0.400)", "16.60 (0.400)", "100 %", NOTHING)
    assert experts.rows[1][6:] == ("7.50 ± 0.50 (0.500)", "7.50 (0.500)", "100 %", "100 %")
    group, expert = study.groups[1], study.experts[0]
    assert percent_of_expert(group, expert, "maze", ("train",)) == pytest.approx(40)


def test_the_way_from_a_random_player_to_an_expert(make_run: MakeRun) -> None:
    random = random_return(Task("maze", "easy", "train"), "train")
    study = gather(
        [
            make_run("a", lambda game, split: [random + 0.1] * 2),
            make_run("b", lambda game, split: [random + 0.4] * 2, games=["maze"]),
            make_run("other", lambda game, split: [random] * 2, games=["bigfish"]),
        ]
    )
    assert percent_from_random(study.groups[0], study.experts[0], "maze", ("train",)) == pytest.approx(25)
    # Maze's trivial player scores 5, more than all of these: against that, nothing can be said.
    assert percent_of_expert(study.groups[0], study.experts[0], "maze", ("train",)) is None


def test_an_expert_that_cannot_play_is_no_measure(make_run: MakeRun) -> None:
    study = gather([make_run("a"), make_run("b", score(-0.9), games=["maze"])])
    assert percent_of_expert(study.groups[0], study.experts[0], "maze", ("train",)) is None
    assert percent_from_random(study.groups[0], study.experts[0], "maze", ("train",)) is None
    assert table(study, "experts").rows[0][-2:] == (NOTHING, NOTHING)


def test_random_actions_were_measured_without_a_twist(make_run: MakeRun) -> None:
    twist = {"twist": "blank 2 of 4"}
    study = gather([make_run("a", **twist), make_run("b", games=["maze"], **twist)])
    assert percent_from_random(study.groups[0], study.experts[0], "maze", ("train",)) is None


def test_ablations_are_held_against_the_full_model(study: Study) -> None:
    ablations = table(study, "ablations")
    assert ablations.title == "Ablations against srwm"
    assert row(ablations, "srwm")[2:4] == (NOTHING, NOTHING)
    assert row(ablations, "lstm")[2].startswith(f"{MINUS}0.300 [{MINUS}0.")
    assert row(ablations, "feedforward")[2:4] == (f"{MINUS}0.300", "0.00")


def test_each_table_of_scores_says_its_protocol(study: Study, make_run: MakeRun) -> None:
    for item in all_tables(study):
        text = " ".join(item.notes)
        if item.key in ("runs", "unfinished"):
            continue
        for part in (
            "greedy (most likely) actions; 2 episodes of each game and split, levels drawn with replacement; easy mode",
            "memory reset at each episode's start, gradient horizon 20 of 20 steps: srwm, lstm",
            "no memory: feedforward",
            "2 runs: srwm, lstm",
            "one seed: feedforward",
        ):
            assert part in text, item.key
    other = gather([make_run("x", reset="50", bptt_span=5, evaluation_greedy=False)])
    text = " ".join(table(other, "aggregates").notes)
    assert "sampled actions" in text
    assert "memory reset every 50 steps, gradient horizon 5 of 20 steps" in text
    assert "One seed of each: no intervals over runs." in text


def test_unfinished_runs_are_reported(study: Study) -> None:
    (cells,) = table(study, "unfinished").rows
    assert cells[0].endswith("s/half-seed9")
    assert cells[1:] == ("100", "200")


def test_plots_are_pictures_and_the_same_every_time(study: Study) -> None:
    plots, again = all_plots(study), all_plots(study)
    assert [plot.key for plot in plots] == [
        "aggregates",
        "profiles",
        "curves-steps",
        "curves-time",
        "curves-games",
    ]
    for plot, other in zip(plots, again, strict=True):
        assert ElementTree.fromstring(plot.svg).tag.endswith("svg")
        assert plot.svg == other.svg
        assert plot.notes


def test_curves_of_runs_are_compared_where_all_have_been() -> None:
    nan = float("nan")
    x, y = common_curve(  # type: ignore[misc]
        [
            (np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0])),
            (np.array([5.0, 15.0, 25.0, 30.0]), np.array([3.0, 3.0, 3.0, nan])),
        ],
        points=4,
    )
    np.testing.assert_allclose(x, [5, 10, 15, 20])
    np.testing.assert_allclose(y, [[0.5, 1, 1.5, 2], [3, 3, 3, 3]])
    assert common_curve([(np.array([0.0, 1.0]), np.zeros(2)), (np.array([2.0, 3.0]), np.zeros(2))]) is None
    assert common_curve([(np.array([]), np.array([]))]) is None


def test_published_curves_are_shown_where_they_exist(make_run: MakeRun) -> None:
    published = published_curve("bigfish", "easy", "train")
    assert published is not None
    assert (published[1, 0], published[2, -1]) == (0.94, 1.31)
    assert published_curve("bigfish", "hard", "train") is None
    assert published_curve("bigfish", "easy", "0:50") is None
    long = gather(
        [make_run("a", curve=[(1_000, 10, 0.1), (10**8, 10, 0.2)], games=["bigfish"], total_steps=10**8)]
    )
    short = gather([make_run("b", games=["bigfish"])])
    for study, part in ((long, "Squares: published"), (short, "begin at more steps")):
        (plot,) = [plot for plot in all_plots(study) if plot.key == "curves-games"]
        assert part in " ".join(plot.notes)


class Page(HTMLParser):
    """What a page would fetch, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.rows += tag == "tr"
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_command_writes_everything(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "here"
    words = [str(runs[0].directory.path.parent), "--out", str(out), "--title", "A <b> title"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "srwm (2 runs)" in shown.out
    assert "half-seed9 is at 100 of 200 steps" in shown.out
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *("report.html", "report.md", "report.json", "scores.csv"),
        *(
            f"plots/{name}.svg"
            for name in ("aggregates", "curves-steps", "curves-time", "curves-games", "profiles")
        ),
    }
    page = Page()
    text = (out / "report.html").read_text()
    page.feed(text)
    assert page.open == []
    assert page.rows > 30
    # Nothing is fetched from anywhere.
    assert all(re.match(r"data:image/svg\+xml;base64,|#", source) for source in page.sources)
    assert "url(" not in text
    assert "A &lt;b&gt; title" in text
    markdown = (out / "report.md").read_text()
    for name in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (out / name).is_file()
    for line in markdown.splitlines():
        if line.startswith("| game"):
            assert line.count("|") == 5
    data = json.loads((out / "report.json").read_text())
    assert data["full_model"] == "srwm"
    assert data["groups"][0]["aggregates"]["unseen"]["mean"]["value"] == pytest.approx(0.4)
    assert data["groups"][2]["aggregates"]["unseen"]["mean"]["low"] is None
    assert [item["of"] for item in data["unfinished"]] == [200]
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 6 + 6
    found = [
        r for r in rows if (r["group"], r["seed"], r["game"], r["split"]) == ("lstm", "1", "maze", "test2")
    ]
    assert float(found[0]["normalized"]) == pytest.approx(0.2)
    assert (found[0]["levels"], found[0]["episodes"]) == ("unseen", "2")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(words) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_nothing_is_said_twice(study: Study) -> None:
    items = ordered(all_tables(study), all_plots(study))
    titles = [item.title for item in items]
    assert len(set(titles)) == len(titles)
    alone, common = say_once(items)
    said = [note for item in alone for note in item.notes if note != SEE_COMMON]
    said += [note for group in common for note in group.notes]
    assert sorted(said) == sorted({note for item in items for note in item.notes})
    # Whoever reads one item finds all of its notes.
    for before, now in zip(items, alone, strict=True):
        found = {note for group in common if now.title in group.titles for note in group.notes}
        assert (set(now.notes) - {SEE_COMMON}) | found == set(before.notes)
        assert (SEE_COMMON in now.notes) == bool(found)
    for text in (markdown("A title", [], items), page("A title", [], items)):
        lines = re.findall(r"^- (.*)$|<li>(.*?)</li>", text, re.MULTILINE)
        found_lines = [one or other for one, other in lines if SEE_COMMON not in one + other]
        assert len(found_lines) == len(set(found_lines)) == len(said)


def test_streams_are_played_once_and_shown(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[str] = []

    def play(agent: Any, protocol: StreamProtocol, *rest: Any) -> list[StreamEpisode]:
        played.append(agent)
        gain = 0.1 if "seed0" in agent else 0.3
        return [
            StreamEpisode(condition, 0, 1, index, game, 0.0, gain * index, 5)
            for condition in protocol.reset_conditions
            for game in protocol.games
            for index in (0, 1)
        ]

    monkeypatch.setattr(stream, "play_streams", play)
    monkeypatch.setattr(stream, "load_to_play", str)
    protocol = replace(stream.default_protocol(study), reset_conditions=("carried", "50"))
    assert (protocol.split, protocol.games, protocol.greedy) == ("test1", ("bigfish", "maze"), True)
    scores = stream.gather_streams(study, protocol)
    assert [group.label for group in scores.groups] == ["srwm", "lstm"]
    assert len(played) == 4
    assert stream.streams_json(stream.gather_streams(study, protocol)) == stream.streams_json(scores)
    assert len(played) == 4
    item = stream.stream_table(scores)
    assert item.header == ("group", "memory", "episode 1", "episode 2", "last minus first")
    assert item.rows[0] == (
        "srwm (2 runs)",
        "never cleared",
        "0.000 ± 0.000",
        "0.200 ± 0.100",
        "0.200 ± 0.100",
    )
    assert [cells[1] for cells in item.rows[:2]] == ["never cleared", "cleared every 50 steps"]
    assert "levels test1 drawn" in " ".join(item.notes)
    assert ElementTree.fromstring(stream.stream_plot(scores).svg).tag.endswith("svg")


def test_streams_that_met_few_games_say_what_is_lacking(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stream, "play_streams", lambda *rest: [StreamEpisode("carried", 0, 1, 0, "maze", 0.0, 0.5, 5)]
    )
    monkeypatch.setattr(stream, "load_to_play", str)
    protocol = replace(stream.default_protocol(study), reset_conditions=("carried",))
    item = stream.stream_table(stream.gather_streams(study, protocol))
    assert item.rows[0] == ("srwm (2 runs)", "never cleared", NOTHING)
    assert "some of the 2 games did not come" in item.notes[0]
    assert "--tasks" in item.notes[0]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("", "no runs"),
        ("RUNS", "give --out DIR"),
        ("nowhere --out out", "nowhere is not a directory"),
        ("RUNS --out out --greedy --sample", "contradict each other"),
        ("RUNS --out out --outt x", "unknown option '--outt': did you mean --out"),
        ("RUNS --out file/x", "is a file; name a directory"),
        ("RUNS --out out --episodes 0", "episodes is 0"),
        ("RUNS --out out --splits tset1", "unknown levels 'tset1'"),
        ("RUNS --out out --baseline X", "no group is called 'X'"),
        ("RUNS --out out --stream --task-duration ages", "unknown task duration 'ages'"),
        ("RUNS --out out --episodes few", "few"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    line: str, part: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as raised:
        main(line.replace("RUNS", "s").split())
    assert part in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_streams_need_a_memory_and_games(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a", games=["maze"])
    with pytest.raises(UserError, match="--stream needs a run of several games whose policy has a memory"):
        main([run.name, "--out", str(tmp_path / "out"), "--stream"])


def test_numbers_as_text() -> None:
    assert number(-0.125, 2) == f"{MINUS}0.12"
    assert number(float("nan")) == NOTHING
    assert plus_minus(np.array([1.0, 3.0]), 1) == "2.00"
    assert plus_minus(np.array([1.0, 3.0]), 2) == "2.00 ± 1.00"


def test_a_report_warns_of_single_seeds_and_of_few(runs: list[Run], tmp_path: Path) -> None:
    """Of both, where some groups have one run and others two."""
    assert main([str(runs[0].directory.path.parent), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "With one seed, nothing can be said" in text
    assert "With 2 runs, intervals are rough" in text


def test_a_report_begins_with_what_its_runs_and_experts_had(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(f"multi-seed{seed}", seed=seed)
    make_run("maze", games=["maze"], total_steps=100)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "1 group of runs on bigfish, maze (easy mode), 200 environment steps of training each, "
        "and experts of one game, 100 environment steps of training each."
    ) in text
    assert "With one seed, nothing can be said" in text  # of the expert
