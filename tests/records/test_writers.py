from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from records.writers import STEP, CsvWriter, PatientWriter, make_logger, sync


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def log(logger: object, step: int, **values: float) -> None:
    for name, value in values.items():
        logger.record(f"train/{name}", value)  # type: ignore[attr-defined]
    logger.dump(step)  # type: ignore[attr-defined]


def test_both_writers_hold_what_was_logged(tmp_path: Path) -> None:
    logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb")
    log(logger, 10, loss=0.5)
    log(logger, 20, loss=0.25)
    logger.close()
    assert rows(tmp_path / "progress.csv") == [
        {STEP: "10", "train/loss": "0.5"},
        {STEP: "20", "train/loss": "0.25"},
    ]
    assert scalars(tmp_path / "tb", "train/loss") == [(10, 0.5), (20, 0.25)]


def test_a_resumed_run_replaces_what_lies_beyond_its_checkpoint(tmp_path: Path) -> None:
    where = (tmp_path / "progress.csv", tmp_path / "tb")
    logger = make_logger(*where)
    for step in (10, 20, 30, 40):
        log(logger, step, loss=float(step))
    logger.close()
    logger = make_logger(*where, resume_step=20)
    assert [row[STEP] for row in rows(where[0])] == ["10", "20"]
    for step in (30, 35):
        log(logger, step, loss=-float(step))
    logger.close()
    expected = [(10, 10.0), (20, 20.0), (30, -30.0), (35, -35.0)]
    assert [(int(row[STEP]), float(row["train/loss"])) for row in rows(where[0])] == expected
    assert scalars(where[1], "train/loss") == expected


def test_a_new_run_starts_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    CsvWriter(path).write({"a": 1}, {}, 5)
    CsvWriter(path)
    assert path.read_text() == ""


def test_a_new_tag_adds_a_column(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    writer = CsvWriter(path)
    writer.write({"a": 1}, {}, 5)
    writer.write({"a": 2, "game/maze/return": 3.5}, {}, 10)
    writer.write({"game/maze/return": 4}, {}, 15)
    assert rows(path) == [
        {STEP: "5", "a": "1", "game/maze/return": ""},
        {STEP: "10", "a": "2", "game/maze/return": "3.5"},
        {STEP: "15", "a": "", "game/maze/return": "4"},
    ]


def test_a_new_tag_after_resuming_keeps_the_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    CsvWriter(path).write({"a": 1}, {}, 5)
    writer = CsvWriter(path, resume_step=5)
    writer.write({"b": 2}, {}, 10)
    assert rows(path) == [{STEP: "5", "a": "1", "b": ""}, {STEP: "10", "a": "", "b": "2"}]


def test_a_row_cut_off_by_a_crash_is_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    writer = CsvWriter(path)
    writer.write({"a": 1, "b": 2}, {}, 5)
    writer.write({"a": 3, "b": 4}, {}, 10)
    path.write_text(path.read_text()[:-4])
    CsvWriter(path, resume_step=10)
    assert [row[STEP] for row in rows(path)] == ["5"]


def test_only_numbers_are_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    CsvWriter(path).write({"a": np.float32(0.5), "text": "x", "image": object()}, {}, 1)
    assert rows(path) == [{STEP: "1", "a": "0.5"}]


@pytest.mark.parametrize("resume_step", [None, 3])
def test_resuming_without_files_starts_them(tmp_path: Path, resume_step: int | None) -> None:
    logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb", resume_step)
    log(logger, 4, loss=1.0)
    logger.close()
    assert scalars(tmp_path / "tb", "train/loss") == [(4, 1.0)]
    assert len(rows(tmp_path / "progress.csv")) == 1


def break_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a disk takes half of what is written and then is full."""

    def put(self: PatientWriter, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PatientWriter, "_put", put)


def test_entries_that_a_full_disk_did_not_take_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb")
    log(logger, 10, loss=1.0)
    with monkeypatch.context() as full:
        break_in_the_middle(full)
        log(logger, 20, loss=2.0)
        log(logger, 30, loss=3.0)
    assert [record.message.count("No space left on device") for record in caplog.records] == [1, 1]
    log(logger, 40, loss=4.0)
    assert caplog.text.count("can be written again") == 2
    expected = [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]
    assert scalars(tmp_path / "tb", "train/loss") == expected
    assert [(int(row[STEP]), float(row["train/loss"])) for row in rows(tmp_path / "progress.csv")] == expected


def test_entries_that_still_wait_at_the_end_are_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb")
    log(logger, 10, loss=1.0)
    with monkeypatch.context() as full:
        break_in_the_middle(full)
        log(logger, 20, loss=2.0)
    logger.close()
    assert scalars(tmp_path / "tb", "train/loss") == [(10, 1.0), (20, 2.0)]
    assert [row[STEP] for row in rows(tmp_path / "progress.csv")] == ["10", "20"]
    assert "lost" not in caplog.text


def test_entries_that_are_lost_in_the_end_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CsvWriter(tmp_path / "progress.csv")
    break_in_the_middle(monkeypatch)
    for step in (10, 20):
        writer.write({"a": 1}, {}, step)
    writer.close()
    assert "2 entries are lost" in caplog.text


def test_what_a_full_disk_cut_off_is_no_obstacle_to_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = (tmp_path / "progress.csv", tmp_path / "tb")
    logger = make_logger(*where)
    log(logger, 10, loss=1.0)
    with monkeypatch.context() as full:
        break_in_the_middle(full)
        log(logger, 20, loss=2.0)
    logger = make_logger(*where, resume_step=10)
    log(logger, 20, loss=2.0)
    assert scalars(where[1], "train/loss") == [(10, 1.0), (20, 2.0)]
    assert [row[STEP] for row in rows(where[0])] == ["10", "20"]


def test_a_number_that_lost_its_last_digits_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    writer = CsvWriter(path)
    writer.write({"a": 1}, {}, 5)
    writer.write({"a": 123456}, {}, 10)
    path.write_text(path.read_text().rstrip()[:-3])
    CsvWriter(path, resume_step=10)
    assert [row[STEP] for row in rows(path)] == ["5"]


def test_a_directory_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    logger = make_logger(folder / "progress.csv", folder / "tb")
    log(logger, 10, loss=1.0)
    shutil.rmtree(folder)
    log(logger, 20, loss=2.0)
    assert scalars(folder / "tb", "train/loss") == [(20, 2.0)]
    assert [row[STEP] for row in rows(folder / "progress.csv")] == ["20"]
    sync(logger)


def test_however_often_a_run_is_continued_there_is_one_file(tmp_path: Path) -> None:
    for resume_step in (None, 10, 20, 20):
        logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb", resume_step)
        log(logger, (resume_step or 0) + 10, loss=1.0)
    assert len(list((tmp_path / "tb").iterdir())) == 1
    assert [step for step, _ in scalars(tmp_path / "tb", "train/loss")] == [10, 20, 30]


def test_files_that_tensorboard_itself_wrote_are_continued(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in (10, 20, 30):
            writer.add_scalar("train/loss", float(step), step)
    logger = make_logger(tmp_path / "progress.csv", tmp_path / "tb", resume_step=20)
    log(logger, 30, loss=-1.0)
    assert scalars(tmp_path / "tb", "train/loss") == [(10, 10.0), (20, 20.0), (30, -1.0)]
