"""Files of grids, and the cells that they give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from common.errors import UserError
from experiments.memory.grid import Grid, Variant, find, lists, plan, read, shipped
from experiments.memory.settings import Cell, every_setting
from policies import core_config

TEXT = """
summary = "two of a kind"
[settings]
task = ["copy", "cue-5"]
seed = [1, 0]
updates = 7
core.heads = 4

[[variant]]
name = "plain"
policy = ["deltanet", "lstm"]

[[variant]]
policy = "srwm"
core.sharpness = [2, 4]
core.layer_norm = true
core.w0_learning_rate = [1, 1, 1, 10]
optimizer = ["adam", "rmsprop"]
seed = 1
"""


def grid(tmp_path: Path, text: str = TEXT) -> Grid:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read(find(str(path)))


def test_cells_are_all_combinations_seed_by_seed_and_task_by_task(tmp_path: Path) -> None:
    cells = plan(grid(tmp_path), {})
    places = [(one.cell.seed, one.cell.task) for one in cells]
    assert list(dict.fromkeys(places)) == [(1, "copy"), (1, "cue-5"), (0, "copy"), (0, "cue-5")]
    assert Counter(places) == {(1, "copy"): 6, (1, "cue-5"): 6, (0, "copy"): 2, (0, "cue-5"): 2}
    assert {one.cell.updates for one in cells} == {7}
    assert cells[0].cell.core == core_config("deltanet", heads=4)
    assert cells[1].cell.core == core_config("lstm")  # which has no heads
    sharp = core_config("srwm", heads=4, sharpness=2.0, layer_norm=True, w0_learning_rate=[1, 1, 1, 10])
    assert cells[2].cell == Cell(task="copy", core=sharp, updates=7, seed=1)
    assert [one.label for one in cells[:6]] == [
        "deltanet, plain",
        "lstm, plain",
        "srwm, sharpness 2, adam",
        "srwm, sharpness 2, rmsprop",
        "srwm, sharpness 4, adam",
        "srwm, sharpness 4, rmsprop",
    ]


def test_what_is_given_overrides_and_a_policy_stands_in_for_the_variants(tmp_path: Path) -> None:
    cells = plan(grid(tmp_path), lists({"policy": ["lstm"], "seed": ["5"], "updates": "3", "task": "copy"}))
    assert [(one.label, one.cell) for one in cells] == [
        ("lstm", Cell(task="copy", core=core_config("lstm"), updates=3, seed=5))
    ]
    cells = plan(grid(tmp_path), lists({"core.hidden": ["3", "5"], "task": "copy", "seed": "0"}))
    assert [one.label for one in cells][:3] == [
        "deltanet, plain",
        "lstm, plain, hidden 3",
        "lstm, plain, hidden 5",
    ]


def test_a_list_of_lists_is_several_values_of_a_setting_that_is_a_list() -> None:
    assert lists({"core": {"w0_learning_rate": [1, 2, 3, 4]}}) == {"core.w0_learning_rate": ([1, 2, 3, 4],)}
    assert lists({"core.w0_learning_rate": [[1], [2]]}) == {"core.w0_learning_rate": ([1], [2])}
    assert lists({"seed": 1, "task": ["a", "b"]}) == {"seed": (1,), "task": ("a", "b")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("summary", "sumary"), "unknown key 'sumary': did you mean summary?"),
        (("[[variant]]\npolicy", "[variant]\npolicy"), "not TOML"),
        (('"lstm"', '"lstn"'), "unknown policy 'lstn': did you mean lstm?"),
        (("core.heads", "core.hats"), "core.hats is a setting of none of the cores: deltanet, lstm, srwm"),
        (("core.sharpness = [2, 4]", "core.hidden = 3"), "unknown setting 'core.hidden'"),
        (("updates = 7", "updates = 0"), r"updates is 0: give 1 or more \(in deltanet, plain, and 15 more\)"),
        (("seed = 1\n", 'seed = 1\nreset = "often"\n'), "reset rule"),
    ],
)
def test_mistakes_are_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plan(grid(tmp_path, TEXT.replace(*change)), {})


def test_a_grid_that_does_not_exist_is_told_from_those_that_ship() -> None:
    with pytest.raises(UserError, match="unknown grid 'shot': did you mean short"):
        find("shot")


@pytest.mark.parametrize("name", shipped())
def test_grids_that_ship_can_be_planned(name: str) -> None:
    found = read(find(name))
    cells = plan(found, {})
    assert found.summary
    assert len({(one.label, one.cell.task, one.cell.seed) for one in cells}) == len(cells)


def test_every_setting_of_every_core_is_known() -> None:
    assert {"task", "policy", "core.hidden", "core.heads", "core.sharpness"} < every_setting().keys()
    assert Variant() == Grid().variants[0]
