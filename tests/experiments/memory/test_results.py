"""What was made is found again, whatever happened to the file in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from experiments.memory.results import FILE, Results
from experiments.memory.settings import Cell
from experiments.memory.training import Outcome, Window
from policies import core_config

CELL = Cell(task="copy", core=core_config("srwm", w0_learning_rate=[1, 1, 1, 9]), reset="5", seed=3)
OUTCOME = Outcome(
    10,
    (Window(50, 0.5, {"layer0/shift_norm": 1.5}), Window(70, 0.75)),
    {"0.9": 60, "0.95": None},
    0.5,
    0.25,
    1.5,
)


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = Results(tmp_path / "deep" / "out")
    results.add(CELL, OUTCOME)
    results.add(replace(CELL, seed=4), replace(OUTCOME, test=1.0))
    again = Results(tmp_path / "deep" / "out").outcomes
    assert again == {CELL: OUTCOME, replace(CELL, seed=4): replace(OUTCOME, test=1.0)}
    assert replace(CELL, reset="6") not in again


def test_a_line_that_was_torn_costs_that_line_alone(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(CELL, OUTCOME)
    file = tmp_path / FILE
    file.write_text(file.read_text() + file.read_text()[:100])
    torn = Results(tmp_path)
    assert list(torn.outcomes) == [CELL]
    torn.add(replace(CELL, seed=5), OUTCOME)
    assert list(Results(tmp_path).outcomes) == [CELL, replace(CELL, seed=5)]


def test_a_setting_of_later_takes_its_default_and_one_that_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    Results(tmp_path).add(CELL, OUTCOME)
    file = tmp_path / FILE
    line = json.loads(file.read_text())
    assert line["made_with"]["torch"]
    del line["cell"]["core"]["rate_offset"]
    gone = json.loads(json.dumps(line))
    gone["cell"]["core"]["flavour"] = 1
    file.write_text("\n".join(map(json.dumps, [gone, [], {}, {"cell": 3, "outcome": None}, line])))
    assert Results(tmp_path).outcomes == {CELL: OUTCOME}
