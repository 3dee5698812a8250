"""Reports on sequences that were never trained: directories with settings and made-up measurements."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from evaluation.report import continual_metrics, continual_pages, continual_study
from evaluation.report.command_line import main
from evaluation.report.random_player import random_return
from evaluation.report.runs import Run
from records.config import from_json
from records.continual import BETWEEN, BOUNDARY, FILE, RECOVERY, ContinualLog, Measurement
from records.directory import RunDirectory

GAMES = ("bigfish", "fruitbot", "starpilot")
# Returns before the first stage and after each, by task: learned, then half lost, then nearly all.
LOST = np.array([[1.0, -2.0, 2.0], [9.0, -2.0, 3.0], [5.0, 20.0, 3.0], [2.0, 10.0, 30.0]])
KEPT = np.array([[1.0, -2.0, 2.0], [9.0, -1.0, 3.0], [8.0, 18.0, 4.0], [8.0, 17.0, 25.0]])

MakeSequence = Callable[..., Run]


@pytest.fixture
def make_sequence(tmp_path: Path) -> MakeSequence:
    def make(name: str, returns: np.ndarray, unfinished: bool = False, **settings: Any) -> Run:
        """A run whose boundary scores are `returns` on both splits, and in between their mean."""
        sequence = {"steps_per_task": 1000, "evaluate_every_steps": 500, **settings.pop("sequence", {})}
        config = from_json(
            {
                "games": GAMES,
                "num_envs": 4,
                "evaluation_episodes": None,
                "videos": False,
                "agent": {"rollout_steps": 20},
                "sequence": sequence,
                **settings,
            }
        )
        assert [problem for problem in config.problems() if "share" not in problem] == []
        run = RunDirectory(tmp_path / name)
        run.create(config, ["made up"])
        log, plan = ContinualLog(run.path / FILE), config.plan
        borders = {stage: step for step, stage in plan.boundaries().items()}
        for number, row in enumerate(returns[: len(returns) - unfinished]):
            for split in ("train", "test1"):
                for task, value in zip(config.tasks, row, strict=True):
                    step = borders.get(number, 0)
                    log.append([Measurement(step, number, BOUNDARY, str(task), split, (value, value), 50)])
            if number + 1 < len(returns):
                begin = borders.get(number, 0)
                middle = (row + returns[number + 1]) / 2
                for step, values in ((begin + 80, row - 0.5), (begin + 560, middle)):
                    for split in ("train", "test1"):
                        log.append(
                            [
                                Measurement(step, number + 1, BETWEEN, str(task), split, (float(value),), 9)
                                for task, value in zip(config.tasks, values, strict=True)
                            ]
                        )
        run.checkpoint_at(max(borders.values())).write_text("")
        return Run(run, config)

    return make


def made(study: continual_study.ContinualStudy, label: str) -> continual_study.Method:
    (found,) = (method for method in study.methods if method.label.startswith(label))
    return found


def test_matrices_and_metrics_come_from_what_was_measured(make_sequence: MakeSequence) -> None:
    runs = [make_sequence("a", LOST), make_sequence("b", KEPT, retention="ewc")]
    study = continual_study.gather(runs)
    none, ewc = made(study, "srwm, none"), made(study, "srwm, ewc")
    assert study.raw(none.first, "train").tolist() == LOST.tolist()
    scale = np.array([9.0, 20.0, 30.0])
    assert study.scales["test1"].tolist() == scale.tolist()
    spans, lows = np.array([39.0, 33.9, 61.5]), np.array([1.0, -1.5, 2.5])
    p = (LOST - lows) / spans
    expected = ((p[1, 0] - p[3, 0]) + (p[2, 1] - p[3, 1])) / 2
    assert continual_metrics.forgetting(study, none, none.first, "train") == pytest.approx(expected)
    assert continual_metrics.final_performance(study, none, none.first, "train") == pytest.approx(p[3].mean())
    lost = [(9 - 5) / 9, (5 - 2) / 9, (20 - 10) / 20]
    found = continual_metrics.isolated_forgetting(study, none, none.first, "train")
    assert found == pytest.approx(10 * np.mean(lost))
    # CORA divides by the largest return of the same method.
    own = [(9 - 8) / 9, (8 - 8) / 9, (18 - 17) / 18]
    assert continual_metrics.cora_forgetting(study, ewc, ewc.first, "train") == pytest.approx(
        10 * np.mean(own)
    )
    # Within the first 2 % of a stage, all old tasks are 0.5 lower.
    dips = [np.mean([0.5 / 39.0]), np.mean([0.5 / 39.0, 0.5 / 33.9])]
    assert continual_metrics.dip(study, none, none.first, "train") == pytest.approx(np.mean(dips))
    assert np.isnan(continual_metrics.relearning(study, none, none.first, "train"))  # one cycle


def test_differences_are_paired_by_seed(make_sequence: MakeSequence) -> None:
    runs = [make_sequence(f"none-{seed}", LOST + seed, seed=seed) for seed in range(3)]
    runs += [make_sequence(f"ewc-{seed}", KEPT + seed, seed=seed, retention="ewc") for seed in (2, 1)]
    study = continual_study.gather(runs)
    ewc = made(study, "srwm, ewc")
    assert study.reference(ewc) is made(study, "srwm, none")
    assert study.reference(made(study, "srwm, none")) is None
    found = study.improvement(ewc, "train", continual_metrics.forgetting)
    assert found is not None
    # Shifting all returns of a seed changes nothing that is lost, so all pairs differ by the same.
    assert found.value == pytest.approx(found.low) == pytest.approx(found.high)
    assert found.value < 0
    shuffled = continual_study.gather(runs[::-1])
    again = shuffled.improvement(made(shuffled, "srwm, ewc"), "train", continual_metrics.forgetting)
    assert again == found


def test_distillation_without_heads_of_old_tasks_is_called_what_it_is(make_sequence: MakeSequence) -> None:
    told = {"tasks": {"count": 3, "id": "told", "heads": "per-task"}}
    runs = [
        make_sequence("shared", KEPT, retention="lwf+si"),
        make_sequence("own", KEPT, retention="lwf", policy=told),
    ]
    labels = {method.label for method in continual_study.gather(runs).methods}
    assert labels == {"srwm, kickstart+si", "srwm, lwf"}


def test_joint_training_and_experts_are_bounds(make_sequence: MakeSequence) -> None:
    joint = make_sequence("joint", KEPT, sequence={"joint": True}, num_envs=6)
    experts = [
        make_sequence(f"expert-{game}", LOST[[0, place + 1]][:, [place]], games=[game])
        for place, game in enumerate(GAMES)
    ]
    study = continual_study.gather([make_sequence("none", LOST), joint, *experts])
    none, both = made(study, "srwm, none"), made(study, "srwm, joint")
    assert np.isnan(continual_metrics.forgetting(study, both, both.first, "train"))
    assert continual_metrics.final_performance(study, both, both.first, "train") > 0
    # The experts are exactly what each stage learned, as fast.
    assert continual_metrics.intransigence(study, none, none.first, "train") == pytest.approx(0.0)
    assert continual_metrics.forward_transfer(study, none, none.first, "train") == pytest.approx(
        0.0, abs=0.02
    )
    scaled = continual_study.gather([make_sequence("other", LOST), *experts], normalizer="expert")
    method = scaled.methods[0]
    low = random_return(scaled.tasks[0], "train")
    share = scaled.normalized(scaled.raw(method.first, "train"), "train")[3, 0]
    assert share == pytest.approx((2.0 - low) / (9.0 - low))


def test_cycles_show_relearning_and_plasticity(make_sequence: MakeSequence) -> None:
    again = np.vstack([LOST, [10.0, 9.0, 8.0], [6.0, 24.0, 7.0], [3.0, 12.0, 33.0]])
    study = continual_study.gather([make_sequence("twice", again, sequence={"cycles": 2})])
    (method,) = study.methods
    assert 0 < continual_metrics.relearning(study, method, method.first, "train") <= 1.0
    assert continual_metrics.plasticity(study, method, method.first, "train") > 1.0


def test_coras_smoothing_takes_the_means_of_many_evaluations(make_sequence: MakeSequence) -> None:
    run = make_sequence("a", LOST)
    study = continual_study.gather([run], cora=True)
    one = study.methods[0].first
    values = one.curve("train").values
    assert study.raw(one, "train")[-1].tolist() == pytest.approx(values.mean(0).tolist())


def test_the_command_writes_pages_of_sequences(
    make_sequence: MakeSequence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_sequence(f"none-{seed}", LOST, seed=seed) for seed in range(2)]
    runs += [make_sequence("ewc", KEPT, retention="ewc")]
    make_sequence("half", LOST, unfinished=True, seed=7)
    half = tmp_path / "half"
    out = tmp_path / "out"
    assert main([*(run.name for run in runs), str(half), "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    for text in (
        "Tasks one after another: what is kept, levels train",
        "Differences to fine-tuning",
        "F and Z of srwm, ewc, levels test1",
        "What the methods cost",
        "Unfinished sequences",
        "Sampled actions; 100 episodes",
        "With one seed of a method there is no interval",
    ):
        assert text in page
    assert sorted(path.name for path in (out / "plots").iterdir()) == [
        f"continual-{what}-{split}.svg" for what in ("curves", "matrix") for split in ("test1", "train")
    ]
    with (out / "continual.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    boundary = [
        row
        for row in rows
        if (row["kind"], row["split"], row["task"], row["stage"]) == (BOUNDARY, "train", "bigfish", "1")
    ]
    assert [(row["method"], row["seed"], float(row["return"])) for row in boundary] == [
        ("srwm, none", "0", 9.0),
        ("srwm, none", "1", 9.0),
        ("srwm, ewc", "0", 9.0),
    ]
    data = json.loads((out / "report.json").read_text())
    assert data["continual"]["methods"][0]["splits"]["train"]["returns"][0] == LOST.tolist()
    assert "continual.csv" in capsys.readouterr().out
    assert not (out / "scores.csv").exists()


def test_what_comes_back_is_shown_where_it_was_measured(make_sequence: MakeSequence) -> None:
    run = make_sequence("a", LOST)
    log = ContinualLog(run.directory.path / FILE)
    for condition, returns in (("fresh", (2.0, 6.0)), ("frozen", (2.0, 2.5))):
        log.append(
            [
                Measurement(2000, 2, RECOVERY, "bigfish", "train", (value,), 9, condition, episode)
                for episode, value in zip((1, 4), returns, strict=True)
            ]
        )
    table = continual_pages.recovery_table(continual_study.gather([run]))
    assert table.header[3:] == ("episode 1", "episode 4")
    assert table.rows == (
        ("srwm, none", "bigfish", "fresh", "2.00", "6.00"),
        ("srwm, none", "bigfish", "frozen", "2.00", "2.50"),
    )


def test_sequences_that_cannot_be_compared(make_sequence: MakeSequence) -> None:
    one = make_sequence("one", LOST)
    other = make_sequence("other", LOST, games=GAMES[::-1])
    with pytest.raises(UserError, match="sequences of different tasks cannot be compared"):
        continual_study.gather([one, other])
    with pytest.raises(UserError, match="no finished expert of bigfish, fruitbot, starpilot"):
        continual_study.gather([one], normalizer="expert")
    with pytest.raises(UserError, match=r"no sequence of several tasks has finished: .*half"):
        continual_study.gather([make_sequence("half", LOST, unfinished=True)])
    with pytest.raises(UserError, match="no group is called 'ewc'"):
        continual_study.gather([one], baseline="ewc")
