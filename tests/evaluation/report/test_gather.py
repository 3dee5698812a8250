"""From run directories to what can be compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from evaluation import Protocol, evaluate_together
from evaluation.report import gather as module
from evaluation.report.found_runs import find_runs
from evaluation.report.gather import cache_file, gather, stored_evaluation
from evaluation.report.runs import Run
from evaluation.report.tables import expert_pairs
from experiments.launch import train
from records.config import from_json
from records.directory import RunDirectory, write_json

MakeRun = Callable[..., Run]
GAMES = ("bigfish", "maze")
SPLITS = ("train", "test1", "test2")


def constant(value: float) -> Callable[[str, str], Sequence[float]]:
    return lambda game, split: [value, value]


def test_scores_stand_where_they_belong_and_normalise_as_by_hand(make_run: MakeRun) -> None:
    table = {
        ("bigfish", "train"): (4.9, 12.7),
        ("bigfish", "test1"): (1.0, 1.0),
        ("bigfish", "test2"): (8.8, 8.8),
        ("maze", "train"): (10.0, 0.0),
        ("maze", "test1"): (5.0, 5.0),
        ("maze", "test2"): (0.0, 10.0),
    }
    runs = [
        make_run("a", lambda game, split: table[game, split], seed=3),
        make_run("b", constant(20.5), seed=1),
    ]
    study = gather(runs)
    (group,) = study.groups
    assert (study.seen, study.unseen) == (("train",), ("test1", "test2"))
    assert [row.seed for row in group.rows] == [1, 3]
    np.testing.assert_allclose(group.raw("bigfish", ("train", "test2")), [[20.5, 20.5], [8.8, 8.8]])
    # bigfish: (R - 1) / 39; maze: (R - 5) / 5.
    np.testing.assert_allclose(group.normalized(("train",)), [[0.5, 3.1], [7.8 / 39, 0.0]])
    np.testing.assert_allclose(group.normalized(("test1", "test2"))[1], [3.9 / 39, 0.0])
    score = group.rows[1].scores["bigfish", "train"]
    assert (score.raw.mean, len(score.episodes)) == (pytest.approx(8.8), 2)
    assert score.raw.standard_error == pytest.approx(3.9)


def test_runs_that_differ_in_more_than_their_seed_are_groups_apart(make_run: MakeRun) -> None:
    runs = [
        make_run("a", seed=0),
        make_run("b", seed=1, log_every_steps=7, torch_threads=3, device="cpu"),
        make_run("c", seed=0, reset="50"),
        make_run("d", seed=0, policy="lstm"),
        make_run("e", seed=0, policy="lstm", core={"hidden": 8}),
        make_run("f", seed=1, policy="lstm", core={"hidden": 8}, env_groups=2),  # draws other levels
    ]
    study = gather(runs)
    assert [(group.label, len(group.rows)) for group in study.groups] == [
        ("srwm (reset episode)", 2),
        ("srwm (reset 50)", 1),
        ("lstm (core.hidden 256, env_groups None)", 1),
        ("lstm (core.hidden 8, env_groups None)", 1),
        ("lstm (core.hidden 8, env_groups 2)", 1),
    ]


def test_a_suite_names_its_groups_and_what_else_to_evaluate(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("suite/full-seed0"), make_run("suite/other-seed0", reset="never")]
    write_json(
        tmp_path / "suite" / "suite.json",
        {
            "suite": "mine",
            "full_model": "full",
            "groups": [{"group": "full", "label": "Full"}, {"group": "other", "label": "Other"}],
            "reevaluations": [{"group": "cut", "label": "Cut", "of": "full", "reset": "50"}],
        },
    )
    protocol = replace(Protocol(("bigfish", "maze"), "easy", ("train", "test1", "test2"), 2), reset="50")
    path = cache_file(runs[0], protocol)
    path.parent.mkdir()
    data = json.loads(runs[0].directory.evaluation_file.read_text())
    data["protocol"]["reset"] = "50"
    for item in data["scores"]:
        item["episodes"]["return"] = [0.0, 2.0]
    path.write_text(json.dumps(data))
    study = gather(find_runs([str(tmp_path / "suite")]))
    assert [group.label for group in study.groups] == ["Full", "Other", "Cut"]
    assert study.full is study.groups[0]
    assert study.groups[2].reset == "50"
    assert study.groups[2].raw("maze", ("train",)).tolist() == [[1.0]]
    assert study.groups[0].raw("maze", ("train",)).tolist() == [[6.0]]
    assert gather(runs, baseline="Other").full is not None
    with pytest.raises(UserError, match="no group is called 'X': there are Full, Other, Cut"):
        gather(runs, baseline="X")


def test_experts_are_put_together_by_seed(make_run: MakeRun) -> None:
    runs = [
        *(make_run(f"multi{seed}", seed=seed) for seed in (0, 1)),
        *(
            make_run(f"{game}{seed}", games=[game], seed=seed)
            for game in ("maze", "bigfish")
            for seed in (0, 1)
        ),
    ]
    study = gather(runs)
    (expert,) = study.experts
    assert (expert.label, expert.games) == ("srwm expert", ("bigfish", "maze"))
    assert [len(row.runs) for row in expert.rows] == [2, 2]
    # Without multi-game runs, they are what is compared.
    study = gather(runs[2:])
    assert study.experts == ()
    assert study.protocol.games == ("maze", "bigfish")
    assert study.groups[0].normalized(("train",)).shape == (2, 2)
    with pytest.raises(UserError, match="srwm has no finished run of bigfish with seed 1"):
        gather(runs[2:5])


def make_suite(path: Path, labels: dict[str, str], **more: Any) -> None:
    groups = [{"group": group, "label": label} for group, label in labels.items()]
    write_json(path / "suite.json", {"suite": "mine", "full_model": None, "groups": groups, **more})


def test_experts_of_a_suite_that_names_them_by_game_are_put_together(
    make_run: MakeRun, tmp_path: Path
) -> None:
    multi = [make_run("multi"), make_run("other", policy="lstm")]
    labels = {}
    for game, policy in itertools.product(("maze", "bigfish"), ("srwm", "lstm")):
        make_run(f"experts/{game}-{policy}-seed0", games=[game], policy=policy, total_steps=100)
        labels[f"{game}-{policy}"] = f"{game}, {policy}"
    make_suite(tmp_path / "experts", labels)
    study = gather([*multi, *find_runs([str(tmp_path / "experts")])])
    assert [(expert.label, expert.games) for expert in study.experts] == [
        ("srwm expert", ("bigfish", "maze")),
        ("lstm expert", ("bigfish", "maze")),
    ]
    assert [(group.label, expert.label) for group, expert in expert_pairs(study)] == [
        ("srwm", "srwm expert"),
        ("lstm", "lstm expert"),
    ]


def test_a_suite_of_single_games_is_compared_over_all_of_them(make_run: MakeRun, tmp_path: Path) -> None:
    labels = {}
    for game, reset in itertools.product(("bigfish", "maze"), ("episode", "50")):
        name, text = f"{game}-{reset}", "usual" if reset == "episode" else "cut in training, too"
        run = make_run(f"suite/{name}-seed0", games=[game], reset=reset)
        labels[name] = f"{game}: {text}"
        if reset == "episode":
            data = json.loads(run.directory.evaluation_file.read_text())
            data["protocol"]["reset"] = "8"
            path = cache_file(run, replace(Protocol((game,), "easy", SPLITS, 2), reset="8"))
            path.parent.mkdir()
            path.write_text(json.dumps(data))
    cut = [
        {"group": f"{game}-cut", "label": f"{game}: cut", "of": f"{game}-episode", "reset": "8"}
        for game in GAMES
    ]
    make_suite(tmp_path / "suite", labels, reevaluations=cut)
    study = gather(find_runs([str(tmp_path / "suite")]))
    assert [(group.label, group.games) for group in study.groups] == [
        ("usual", GAMES),
        ("cut in training, too", GAMES),
        ("usual, memory reset every 8 steps", GAMES),
    ]


def test_what_cannot_be_compared_is_refused_before_anything_is_played(make_run: MakeRun) -> None:
    runs = [
        make_run("a", games=["maze"]),
        make_run("b", games=["bigfish"]),
        make_run("c", games=["maze"], policy="lstm"),
        make_run("d", games=["maze"], seed=1),
    ]
    for run in runs:
        run.directory.evaluation_file.unlink()  # and none of them has a checkpoint that could be played
    with pytest.raises(UserError, match="lstm plays maze: name runs that play the same ones"):
        gather(runs[:3])
    with pytest.raises(UserError, match="no finished run of bigfish with seed 1"):
        gather([*runs[:2], runs[3]])


def test_the_same_run_twice_counts_once(make_run: MakeRun) -> None:
    study = gather([make_run("a"), make_run("b")])
    assert len(study.groups[0].rows) == 1
    assert [note.partition("/a ")[2] for note in study.notes] == [
        "(same settings, same seed) and was left out"
    ]


def test_unfinished_runs_are_named_and_not_scored(make_run: MakeRun) -> None:
    study = gather([make_run("a"), make_run("b", finished=False, seed=1)])
    assert [run.name.rpartition("/")[2] for run in study.unfinished] == ["b"]
    assert len(study.groups[0].rows) == 1
    with pytest.raises(UserError, match=r"none of the runs has finished: .*b is at 100 of 200 steps"):
        gather([study.unfinished[0]])


@pytest.mark.parametrize(
    ("left", "right", "part"),
    [
        ({}, {"games": ["bigfish", "heist"]}, "runs of different games cannot be compared: "),
        ({}, {"games": ["heist"]}, "b cannot be compared: it plays heist, which is none of the games"),
        ({}, {"games": ["maze", "heist"], "mode": "memory"}, "runs of different mode cannot be compared: "),
        ({}, {"levels": "0:50"}, "runs of different training levels cannot be compared: "),
        ({}, {"twist": "blank 2 of 4"}, "runs of different twist cannot be compared: "),
        ({"games": ["maze"]}, {"games": ["heist"], "reset": "9"}, "runs that play different games cannot be"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    left: dict[str, Any], right: dict[str, Any], part: str, make_run: MakeRun
) -> None:
    runs = [make_run("a", **left), make_run("b", **right)]
    with pytest.raises(UserError) as raised:
        gather(runs)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_where_protocols_differ_the_papers_is_taken(make_run: MakeRun) -> None:
    runs = [make_run("a"), make_run("b", evaluation_episodes=5, seed=1)]
    protocol = module.common_protocol(runs)
    assert (protocol.splits, protocol.episodes, protocol.greedy) == (
        ("train", "test1", "test2", "test3"),
        200,
        True,
    )
    assert module.common_protocol(runs[1:]).episodes == 5


def test_stored_scores_count_for_their_checkpoint_and_protocol_only(make_run: MakeRun) -> None:
    run = make_run("a")
    checkpoint = run.directory.newest_checkpoint()
    protocol = Protocol(("bigfish", "maze"), "easy", ("train", "test1", "test2"), 2)
    assert stored_evaluation(run, checkpoint, protocol) is not None
    for other in (
        replace(protocol, episodes=3),
        replace(protocol, greedy=False),
        replace(protocol, seed=1),
        replace(protocol, reset="50"),
        replace(protocol, every_level=True),
        replace(protocol, splits=("train",)),
    ):
        assert stored_evaluation(run, checkpoint, other) is None
        assert cache_file(run, other) != cache_file(run, protocol)
    assert stored_evaluation(run, run.directory.checkpoint_at(300), protocol) is None
    data = json.loads(run.directory.evaluation_file.read_text())
    del data["agent"]["reset"]
    for text in ("{", json.dumps(data)):
        run.directory.evaluation_file.write_text(text)
        assert stored_evaluation(run, checkpoint, protocol) is None


def test_an_evaluation_from_before_a_setting_stands_for_the_default(make_run: MakeRun) -> None:
    run = make_run("a")
    checkpoint = run.directory.newest_checkpoint()
    protocol = Protocol(("bigfish", "maze"), "easy", ("train", "test1", "test2"), 2)
    data = json.loads(run.directory.evaluation_file.read_text())
    del data["protocol"]["twist"]
    run.directory.evaluation_file.write_text(json.dumps(data))
    assert stored_evaluation(run, checkpoint, protocol) is not None
    assert stored_evaluation(run, checkpoint, replace(protocol, twist="blank 2 of 4")) is None


def test_curves(make_run: MakeRun) -> None:
    curve = make_run("a").curve()
    np.testing.assert_array_equal(curve.steps, [100, 200])
    np.testing.assert_allclose(curve.seconds, [2.0, 6.0])  # 100 steps at 50, then 100 at 25 per second
    np.testing.assert_allclose(curve.normalized, [0.1, 0.3])
    np.testing.assert_allclose(curve.returns["maze"], [1.0, 3.0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run of a tiny network, without a final evaluation."""
    config = from_json(
        {
            "games": ["chaser", "fruitbot"],
            "num_envs": 4,
            "total_steps": 80,
            "core": {"width": 8, "heads": 2, "feedforward": 8, "layers": 1},
            "encoder": {"channels": [4], "hidden": 8},
            "agent": {"rollout_steps": 20},
            "env_threads": 0,
            "device": "cpu",
            "evaluation_episodes": None,
            "videos": False,
        }
    )
    path = tmp_path_factory.mktemp("report") / "run"
    assert train(config, path) == 0
    return Run(RunDirectory(path), config)


def test_what_is_missing_is_evaluated_once_and_gives_the_same_table_again(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Protocol] = []

    def spy(agent: Any, protocol: Protocol, *rest: Any) -> Any:
        calls.append(protocol)
        return evaluate_together(agent, protocol, *rest)

    monkeypatch.setattr(module, "evaluate_together", spy)
    protocol = Protocol(("chaser",), "easy", ("0:3", "10:13"), every_level=True, greedy=False)
    first = gather([trained], protocol)
    assert [call.games for call in calls] == [("chaser", "fruitbot")]
    again = gather([trained], protocol)
    assert len(calls) == 1
    path = cache_file(trained, replace(protocol, games=trained.config.games))
    before = path.read_bytes()
    path.unlink()
    third = gather([trained], protocol)
    assert len(calls) == 2
    assert path.read_bytes() == before
    for study in (again, third):
        assert study.groups[0].rows[0].scores == first.groups[0].rows[0].scores
    # Each level of each split once.
    for item in json.loads(before)["scores"]:
        assert item["episodes"]["level"] == list(range(*map(int, item["split"].split(":"))))
