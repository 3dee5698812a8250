from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from benchmarks import plot_learning_curves
from benchmarks.learning_curve import learning_curve
from evaluation.report.plots import published_curves
from records.config import TrainConfig
from records.directory import RunDirectory
from records.writers import CsvWriter


def make_run(path: Path, entries: int) -> RunDirectory:
    run = RunDirectory(path)
    run.create(TrainConfig(games=("starpilot",)), ["python", "train.py", "expert"])
    writer = CsvWriter(run.progress_file)
    for entry in range(1, entries + 1):
        numbers = {"game/starpilot/return": entry / 10, "time/sps": 600.0, "train/entropy": 2.5}
        writer.write(numbers, {}, 3200 * entry)
    return run


def test_a_curve_keeps_evenly_spaced_points_and_the_last(tmp_path: Path) -> None:
    record = learning_curve(make_run(tmp_path / "run", 100), points=20)
    assert record["curve"]["steps"] == [16_000 * i for i in range(1, 21)]
    assert record["curve"]["starpilot"] == [i / 2 for i in range(1, 21)]
    assert record["command"] == ["python train.py expert"]
    assert record["config"]["games"] == ["starpilot"]
    assert record["machine"]["cores"] >= 1


def test_curves_are_drawn_beside_the_published_ones(tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    file.write_text(json.dumps(learning_curve(make_run(tmp_path / "run", 400), points=50)))
    plot_learning_curves.draw(plot_learning_curves.Settings((file,), tmp_path / "curve.png"))
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (1040, 624)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_same_by_hours(tmp_path: Path) -> None:
    record = learning_curve(make_run(tmp_path / "run", 100), points=20)
    record["curve"]["sps"][7] = 1.0  # it stood still
    assert plot_learning_curves.hours_of(record["curve"])[-1] == 320_000 / 600 / 3600
    file = tmp_path / "curve.json"
    file.write_text(json.dumps(record))
    plot_learning_curves.draw(plot_learning_curves.Settings((file,), tmp_path / "curve.png", hours=True))
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (1820, 624)


def test_the_published_curves_are_complete() -> None:
    published = published_curves()
    assert len(published["easy-200"]) == 16
    assert len(published["steps"]) == len(published["easy-200"]["starpilot"]["train"]["mean"]) == 8
