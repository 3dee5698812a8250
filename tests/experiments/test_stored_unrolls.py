"""Runs that store unrolls: where these are, what is left of them, and what is said when they are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agents import read_checkpoint
from common.errors import UserError
from experiments.launch import resume, train
from helpers import assert_same, tiny_run
from records.config import TrainConfig
from records.directory import RunDirectory


def storing(**changes: object) -> TrainConfig:
    settings = {"retention": "clear", "retain": {"replay_steps": 240}, "keep_checkpoints": 2, **changes}
    return tiny_run(**settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of 24 unrolls, of which 12 are kept, in files of 4."""
    run = RunDirectory(tmp_path_factory.mktemp("storing") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agents.retention.store.SEGMENT_ROWS", 4)
        assert train(storing(), run.path) == 0
    return run


@pytest.fixture
def copy(finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr("agents.retention.store.SEGMENT_ROWS", 4)
    shutil.copytree(finished.path, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def test_a_resumed_run_finds_what_was_stored(finished: RunDirectory, copy: RunDirectory) -> None:
    copy.checkpoint_at(480).unlink()
    assert resume(copy.path) == 0
    assert_same(read_checkpoint(copy.checkpoint_at(480)), read_checkpoint(finished.checkpoint_at(480)))


def test_files_are_those_that_kept_checkpoints_name(finished: RunDirectory) -> None:
    states = [read_checkpoint(path)["learner"]["retention"] for path in finished.checkpoint_files()]
    named = {name for state in states for name in state["files"].values()}
    assert len(states) == 2
    assert {path.name for path in finished.replay.iterdir()} == named


def test_a_missing_file_is_named_and_nothing_is_lost(copy: RunDirectory) -> None:
    copy.checkpoint_at(480).unlink()
    names = sorted(read_checkpoint(copy.checkpoint_at(320))["learner"]["retention"]["files"].values())
    (copy.replay / names[0]).rename(copy.path / names[0])
    before = copy.checkpoint_at(320).read_bytes()
    with pytest.raises(UserError, match=f"{names[0]} is missing: .* put it back"):
        resume(copy.path)
    assert copy.checkpoint_at(320).read_bytes() == before
    (copy.path / names[0]).rename(copy.replay / names[0])
    assert resume(copy.path) == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"retention": "cleer"}, "unknown retention 'cleer': did you mean clear"),
        ({"retention": "xdg"}, "retention xdg needs a policy that is told its task: use tasks.id told"),
        ({"retain": {"replay_state": "20"}}, "retain.replay_state takes 20 steps of unrolls that have 20"),
        ({"retain": {"replay_state": "old"}}, "retain.replay_state is 'old': give stored, fresh or a number"),
        ({"retain": {"replay_steps": 0}}, "retain.replay_steps is 0: give 1 or more"),
        (
            {"retention": "wpl", "retain": {"wpl_form": "schur", "decoupled": True}},
            "retain.wpl_form schur has no decoupled step",
        ),
    ],
)
def test_contradictions_are_found_before_anything_is_created(
    changes: dict[str, object], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        train(storing(**changes), tmp_path / "run")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    retain = {"replay_steps": 10**10}
    with pytest.raises(UserError, match=r"can need [\d,]+\.\d GB on the disk of .* are free: store fewer"):
        train(storing(total_steps=10**12, retain=retain), tmp_path / "run")
    assert not (tmp_path / "run").exists()
