"""Runs and trained agents by what commands call them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.files import write_json
from envs import normalized_score
from evaluation.report.command_line import main
from evaluation.report.found_runs import TrainedAgentRun, find_runs
from evaluation.report.gather import common_protocol
from evaluation.report.runs import Run
from evaluation.trained import DIRECTORY, read_card
from evaluation.trained.history import History
from records.config import from_json, to_json

MakeRun = Callable[..., Run]


def write_agent(directory: Path, name: str, card: dict[str, Any]) -> Path:
    """An exported agent of which nothing but the card can be read."""
    weights = directory / f"{name}.ckpt"
    weights.write_text("")
    write_json(directory / f"{name}.json", card)
    return weights


def make_card(history: History, **settings: Any) -> dict[str, Any]:
    scores = [{"split": split, "episodes": 20} for split in ("train", "test1", "train", "test1")]
    config = from_json({"games": ["bigfish", "maze"], **settings})
    return {"settings": to_json(config), **history.plain(), "scores": scores}


def test_runs_are_found_by_their_directories_and_by_that_of_a_suite(
    make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [make_run("suite/a"), make_run("suite/b", seed=1)]
    (tmp_path / "suite" / "logs").mkdir()
    assert [run.name for run in find_runs([str(tmp_path / "suite")])] == [run.name for run in runs]
    assert len(find_runs([str(tmp_path / "suite"), runs[0].name])) == 2
    for path, part in ((tmp_path / "suite" / "logs", "holds no run"), (tmp_path / "x", "is not a directory")):
        with pytest.raises(UserError, match=part):
            find_runs([str(path)])


def test_a_trained_agent_is_found_by_its_name() -> None:
    run, again = find_runs(["easy6-srwm"]), find_runs([str(DIRECTORY / "easy6-srwm.ckpt"), "easy6-srwm"])
    card = read_card("easy6-srwm")
    (agent,) = run
    assert isinstance(agent, TrainedAgentRun)
    assert agent.finished
    assert (agent.name, agent.label, agent.steps) == ("easy6-srwm", "easy6-srwm", card["steps"])
    assert agent.checkpoint == DIRECTORY / "easy6-srwm.ckpt"
    assert not agent.evaluations.resolve().is_relative_to(DIRECTORY)
    assert [other.evaluations for other in again] == [agent.evaluations]
    with pytest.raises(UserError, match=r"easy6 is not a directory: .* or trained agents .*easy6-srwm"):
        find_runs(["easy6"])


def test_a_directory_of_the_same_name_comes_first(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("easy6-srwm")
    monkeypatch.chdir(tmp_path)
    (run,) = find_runs(["easy6-srwm"])
    assert not isinstance(run, TrainedAgentRun)


def test_a_trained_agents_curve_is_that_of_its_card(tmp_path: Path) -> None:
    history = History(400, 0.5, (), (200,), {"steps": (100, 400), "bigfish": (1.0, 4.9), "maze": (None, 5.0)})
    (run,) = find_runs([str(write_agent(tmp_path, "mine", make_card(history, total_steps=200)))])
    assert (run.name, run.steps, run.config.total_steps) == ("mine", 400, 400)
    curve = run.curve()
    np.testing.assert_array_equal(curve.steps, [100, 400])
    np.testing.assert_allclose(curve.seconds, [450, 1800])
    np.testing.assert_array_equal(curve.returns["maze"], [np.nan, 5.0])
    both = [normalized_score("bigfish", "easy", 4.9), normalized_score("maze", "easy", 5.0)]
    np.testing.assert_allclose(curve.normalized, [np.nan, np.mean(both)])


def test_a_trained_agent_is_scored_as_it_was_for_its_card(tmp_path: Path) -> None:
    card = make_card(History(400), evaluation_episodes=None, evaluation_greedy=False)
    (run,) = find_runs([str(write_agent(tmp_path, "mine", card))])
    protocol = common_protocol([run])
    assert (protocol.splits, protocol.episodes, protocol.greedy) == (("train", "test1"), 20, False)


def test_agents_of_one_name_are_evaluated_apart(tmp_path: Path) -> None:
    """Those of one place before and after more training, and those of two places."""
    weights = write_agent(tmp_path, "mine", make_card(History(400)))
    before = find_runs([str(weights)])
    weights.write_text("others")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = write_agent(tmp_path / "elsewhere", "mine", make_card(History(400), seed=1))
    elsewhere.write_text("others again")
    found = before + find_runs([str(weights), str(elsewhere)])
    assert len({run.evaluations for run in found}) == 3


def test_weights_that_no_card_tells_of_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bare.ckpt").write_text("")
    write_agent(tmp_path, "odd", {"settings": {"games": ["nothing"]}})
    write_agent(tmp_path, "sequence", make_card(History(200), sequence={"steps_per_task": 100}))
    for name, part in (
        ("bare", r"\(bare.json\)"),
        ("odd", r"\(odd.json\)"),
        ("sequence", "one after another"),
    ):
        with pytest.raises(UserError, match=part) as caught:
            find_runs([str(tmp_path / f"{name}.ckpt")])
        assert "\n" not in str(caught.value)


def test_a_run_that_began_with_an_agent_counts_its_steps_too(make_run: MakeRun) -> None:
    run = make_run("a")
    assert run.steps == 200
    write_json(run.directory.origin_file, History(300, None).plain())
    assert Run(run.directory, run.config).steps == 500


def test_a_report_plays_a_trained_agent_with_and_without_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["starpilot-srwm", "starpilot-feedforward", "--splits", "test1", "--episodes", "2"]
    words += ["--reset", "20", "--out", "report"]
    assert main(words) == 0
    report = json.loads(Path("report/report.json").read_text())
    assert [group["label"] for group in report["groups"]] == [
        "starpilot-srwm",
        "starpilot-feedforward",
        "starpilot-srwm, memory reset every 20 steps",
    ]
    assert [group["steps"] for group in report["groups"]] == [
        [read_card(name)["steps"]] for name in ("starpilot-srwm", "starpilot-feedforward", "starpilot-srwm")
    ]
    assert "Evaluating" in capsys.readouterr().out
    assert main(words) == 0
    assert "Evaluating" not in capsys.readouterr().out
    with pytest.raises(UserError, match="reset"):
        main([*words, "--reset", "sometimes"])
