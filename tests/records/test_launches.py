from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.files import write_json
from records.launches import FILE, begun_by, is_restart, launch_id, record_of

TORCHRUN = {"TORCHELASTIC_RUN_ID": "abc", "TORCHELASTIC_RESTART_COUNT": "0"}
COMMAND = ["python", "train.py", "quick"]


def test_a_plain_start_leaves_no_record() -> None:
    assert launch_id({}) is None
    assert record_of(COMMAND, {}) is None
    assert not is_restart({})


def test_torchrun_and_slurm_say_when_they_start_again() -> None:
    assert not is_restart(TORCHRUN)
    assert is_restart({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert is_restart({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
    # A job that is requeued starts another torchrun: only the job's number stays.
    assert launch_id({**TORCHRUN, "SLURM_JOB_ID": "7"}) == "7"


def test_a_restart_finds_the_run_that_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    places = [tmp_path / name for name in ("other", "older", "newer", "empty")]
    records = [record_of(["another"]), record_of(COMMAND), record_of(COMMAND)]
    for age, (place, record) in enumerate(zip(places, records, strict=False)):
        place.mkdir()
        write_json(place / FILE, record)
        os.utime(place / FILE, (age, age))
    assert begun_by(COMMAND, places) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert begun_by(COMMAND, places) == tmp_path / "newer"
    assert begun_by(COMMAND, places[:1]) is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "later")
    assert begun_by(COMMAND, places) is None
