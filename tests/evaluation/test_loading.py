from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents import Agent
from common.errors import UserError
from evaluation.loading import TrainingInfo, find_checkpoint, training_info


def test_the_newest_checkpoint_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="holds no checkpoints"):
        find_checkpoint(tmp_path / "run")
    for step in (900, 12_000, 3_000):
        (folder / f"step_{step:012d}.ckpt").touch()
    (folder / "notes.txt").touch()
    assert find_checkpoint(tmp_path / "run") == folder / "step_000000012000.ckpt"
    assert find_checkpoint(folder / "step_000000000900.ckpt") == folder / "step_000000000900.ckpt"
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoint(tmp_path / "rnu")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (
            {"games": ["maze", "heist"], "mode": "memory", "levels": "0:9", "num_envs": 4},
            TrainingInfo(("maze", "heist"), "memory", "0:9"),
        ),
        ({}, TrainingInfo((), "easy", "train")),
        ({"games": "maze", "mode": 3, "levels": None}, TrainingInfo((), "easy", "train")),
    ],
)
def test_what_an_agent_was_trained_on(stored: dict[str, Any], expected: TrainingInfo) -> None:
    assert training_info(cast(Agent, SimpleNamespace(experiment=stored))) == expected
