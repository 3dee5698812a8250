from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evaluation import Episode, GameScore, Protocol, Results, print_table, write_results
from evaluation.agent_info import AgentInfo

AGENT = AgentInfo("srwm", "impala", 120_000, True, "episode", 50, 50, "0:200")


def results(protocol: Protocol, agent: AgentInfo = AGENT, only: int | None = None) -> Results:
    """In maze 4 and 10, in bigfish 20 and 21; `only` keeps so many episodes of each."""
    returns = {"maze": (4.0, 10.0), "bigfish": (20.0, 21.0)}
    scores = [
        GameScore(
            game, "easy", levels, tuple(Episode(r, 5, levels.start, r == 10) for r in returns[game][:only])
        )
        for levels in protocol.levels
        for game in protocol.games
    ]
    return Results(agent, protocol, tuple(scores))


def shown(found: Results, width: int | None = None) -> str:
    file = io.StringIO()
    print_table(found, Console(file=file, force_terminal=width is not None, width=width, no_color=True))
    return file.getvalue()


TWO = Protocol(games=("maze", "bigfish"), splits=("train", "test1"), episodes=2, seed=7)


def test_the_numbers_are_there() -> None:
    lines = [line.split() for line in shown(results(TWO)).splitlines()]
    assert ["maze", *["7.00", "±", "3.00", "0.400"] * 2] in lines  # (7 - 5) / (10 - 5)
    assert ["bigfish", *["20.50", "±", "0.50", "0.500"] * 2] in lines  # (20.5 - 1) / (40 - 1)
    assert ["all", "games", *["0.45", "±", "0.30"] * 2] in lines  # root of 0.6² + 0.0128², for a mean of two
    assert ["game", "trained", "on", "unseen"] in lines
    assert ["levels", "0-199", "levels", "1000-1199"] in lines


def test_how_they_were_made_is_there() -> None:
    text = shown(results(TWO))
    assert "srwm, impala, 120,000 steps of training; easy mode" in text
    assert (
        "greedy (most likely) actions; 2 episodes of each game and split, levels drawn with replacement; seed 7"
        in text
    )
    assert "memory reset at each episode's start, gradient horizon 50 of 50 steps" in text

    sampled = replace(TWO, greedy=False, every_level=True, reset="20")
    text = shown(results(sampled, replace(AGENT, gradient_horizon=1)))
    assert "sampled actions; each level of a split exactly once; seed 7" in text
    memory = "memory reset every 20 steps in evaluation, at each episode's start in training, gradient horizon 1 of 50"
    assert memory in text

    exploring = shown(results(replace(TWO, mode="exploration", splits=("train",))))
    assert "2 episodes of each game, on its one level; seed 7" in exploring
    assert "levels 0-199" not in exploring

    assert "no memory" in shown(results(TWO, replace(AGENT, recurrent=False)))


@pytest.mark.parametrize(
    ("trained", "played", "word"),
    [
        ("0:200", "10:20", "trained on"),
        ("all", "test3", "trained on"),
        ("0:200", "200:300", "unseen"),
        ("5:9", "0:5", "unseen"),
        ("0:200", "199:300", "partly unseen"),
        ("0:200", "all", "partly unseen"),
    ],
)
def test_whether_levels_are_new(trained: str, played: str, word: str) -> None:
    agent = replace(AGENT, training_levels=trained)
    lines = shown(results(replace(TWO, splits=(played,)), agent)).splitlines()
    header = next(line for line in lines if line.lstrip().startswith("game"))
    assert header.split(maxsplit=1)[1].strip() == word


def test_nothing_is_cut_off() -> None:
    four = results(replace(TWO, splits=("train", "test1", "test2", "test3")))
    in_a_file = shown(four)
    assert in_a_file.count("\n maze") == 1
    assert in_a_file.count("7.00 ± 3.00") == 4
    narrow = shown(four, width=80)
    assert narrow.count("\n maze") == 2  # two splits beside one another, the others below
    assert narrow.count("7.00 ± 3.00") == 4
    assert "…" not in in_a_file + narrow


def test_json_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("an older file")
    write_results(results(TWO), path, "run/checkpoints/step_000000120000.ckpt")
    data = json.loads(path.read_text())
    assert data["checkpoint"] == "run/checkpoints/step_000000120000.ckpt"
    assert data["agent"]["gradient_horizon"] == 50
    assert data["agent"]["training_levels"] == "0:200"
    assert data["protocol"]["greedy"] is True
    assert data["protocol"]["splits"] == ["train", "test1"]
    assert data["aggregate"]["test1"]["mean"] == pytest.approx(0.45)
    maze = data["scores"][2]
    assert (maze["game"], maze["split"], maze["level_start"], maze["level_count"]) == (
        "maze",
        "test1",
        1000,
        200,
    )
    assert maze["raw"] == pytest.approx({"mean": 7.0, "standard_error": 3.0})
    assert maze["normalized"]["mean"] == pytest.approx(0.4)
    assert maze["episodes"] == {
        "return": [4.0, 10.0],
        "length": [5, 5],
        "level": [1000, 1000],
        "complete": [False, True],
    }
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


def test_unknown_errors_are_shown_and_stored_as_unknown(tmp_path: Path) -> None:
    single = results(replace(TWO, episodes=1), only=1)
    assert "4.00 ± ?" in shown(single)
    write_results(single, tmp_path / "scores.json")
    assert "NaN" not in (tmp_path / "scores.json").read_text()
    assert json.loads((tmp_path / "scores.json").read_text())["scores"][0]["raw"]["standard_error"] is None


def test_scores_by_name() -> None:
    found = results(TWO)
    assert found.score("bigfish", "test1").levels.start == 1000
    with pytest.raises(KeyError):
        found.score("bigfish", "test2")
