"""Runs that several processes share, from the command line: started, stopped, killed, continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from agents import read_checkpoint
from agents.collector import Collector
from agents.place import Place
from benchmarks import team
from benchmarks.faults.process import load_everything
from benchmarks.team import Team
from common.cli import run_command
from common.errors import UserError
from experiments import launch, processes
from experiments.processes import share_problems
from experiments.stopping import StopOnRequest
from helpers import assert_same, tiny_run
from records.config import to_json
from records.directory import RunDirectory, checkpoint_step

Plant = Callable[[int], None]
NOTHING: Mapping[str, str] = MappingProxyType({})


def run_in(
    size: int,
    folder: Path,
    words: Sequence[str],
    plant: Plant = lambda rank: None,
    environment: Mapping[str, str] = NOTHING,
) -> tuple[list[int], str]:
    """Exit codes of `size` processes of train.py with `words`, and all that they say."""

    def work(rank: int) -> int:
        plant(rank)
        return run_command(lambda: launch.main(words))

    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("said*"):
        file.unlink()
    members = Team(size, work, folder, environment)
    codes = members.wait()
    return codes, "".join(members.said())


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def at_rollout(number: int, action: Callable[[Collector], object], rank: int) -> Plant:
    """Do `action` at the start of the `number`-th rollout of one process."""

    def plant(own: int) -> None:
        collect, left = Collector.collect, number

        def counting(self: Collector, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and own == rank:
                action(self)
            return collect(self, *arguments)

        Collector.collect = counting

    return plant


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load_everything()  # so that forks need not


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = replace(
        tiny_run(),
        checkpoint_every_steps=80,
        evaluation_episodes=2,
        evaluation_splits=("train",),
        total_steps=400,
    )
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(to_json(config)))
    return str(path)


@pytest.fixture(scope="module")
def whole(config_file: str, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of two processes that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    codes, said = run_in(2, folder, ["--config", config_file, "--run-dir", str(folder / "run")])
    assert codes == [0, 0], said
    assert said.count("Training srwm") == 1
    assert "4 environments in 2 processes" in said
    return RunDirectory(folder / "run")


def same_end(run: RunDirectory, whole: RunDirectory) -> None:
    assert_same(read_checkpoint(run.checkpoint_at(400)), read_checkpoint(whole.checkpoint_at(400)))
    mine, theirs = (json.loads(one.evaluation_file.read_text())["scores"] for one in (run, whole))
    assert mine == theirs


def test_checkpoints_count_the_steps_of_all_and_hold_the_parts_of_all(whole: RunDirectory) -> None:
    assert [checkpoint_step(path) for path in whole.checkpoint_files()] == [80, 160, 240, 320, 400]
    run = read_checkpoint(whole.checkpoint_at(400))["run"]
    assert run["num_envs"] == 2
    assert run["num_timesteps"] == 400
    assert len(run["others"]) == 1
    other = run["others"][0]
    assert other["episodes"] == run["episodes"]
    assert not np.array_equal(other["env"]["native"], run["env"]["native"])


def test_a_killed_process_ends_all_and_the_launcher_starts_them_again(
    whole: RunDirectory, config_file: str, tmp_path: Path
) -> None:
    words = ["--config", config_file, "--run-dir", str(tmp_path / "run")]
    die = at_rollout(4, lambda self: os.kill(os.getpid(), signal.SIGKILL), rank=1)
    codes, said = run_in(2, tmp_path / "1", words, die, {"TORCHELASTIC_RUN_ID": "7"})
    assert codes == [1, -signal.SIGKILL]
    assert len(errors(said)) == 1
    assert "another of the 2 processes has left or hangs" in said
    assert "step_000000000240.ckpt; continue with --resume" in said
    again = {"TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_RESTART_COUNT": "1"}
    codes, said = run_in(2, tmp_path / "2", words, environment=again)
    assert codes == [0, 0], said
    assert "Continuing step_000000000240.ckpt" in said
    same_end(RunDirectory(tmp_path / "run"), whole)
    # What has ended needs no third start; another launch is no restart, and is refused.
    codes, said = run_in(2, tmp_path / "3", words, environment=again)
    assert codes == [0, 0], said
    codes, said = run_in(2, tmp_path / "4", words, environment={**again, "TORCHELASTIC_RUN_ID": "8"})
    assert codes == [2, 2]
    assert len(errors(said)) == 1


def test_a_signal_to_one_process_stops_and_saves_all(
    whole: RunDirectory, config_file: str, tmp_path: Path
) -> None:
    def ask(rank: int) -> None:
        original = StopOnRequest._on_step

        def on_step(self: StopOnRequest) -> bool:
            if self.model.num_timesteps == 176 and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self)

        StopOnRequest._on_step = on_step

    run = RunDirectory(tmp_path / "run")
    codes, said = run_in(2, tmp_path, ["--config", config_file, "--run-dir", str(run)], ask)
    assert codes == [143, 143], said
    assert said.count("Stopped at 240 of 400 steps; saved") == 1
    assert [checkpoint_step(path) for path in run.checkpoint_files()] == [80, 160]
    codes, said = run_in(2, tmp_path / "2", ["--resume", str(run)])
    assert codes == [0, 0], said
    same_end(run, whole)


def poisoned(collector: Collector) -> None:
    rollout = collector.transform.rollout
    collector.transform.rollout = lambda *all_of_them: np.full_like(rollout(*all_of_them), np.nan)  # type: ignore[method-assign]


def test_a_number_that_is_not_finite_in_one_process_stops_all_with_one_line(
    config_file: str, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    words = ["--config", config_file, "--run-dir", str(run)]
    codes, said = run_in(2, tmp_path, words, at_rollout(4, poisoned, rank=1))
    assert codes == [1, 1], said
    (line,) = errors(said)
    assert "batch.rewards" in line
    assert "saved" in line
    (bundle,) = run.diagnostics.glob("*.ckpt")
    assert not np.isfinite(read_checkpoint(bundle)["batch"]["batch.rewards"]).all()  # of the process to blame
    assert checkpoint_step(run.newest_checkpoint()) == 240


def test_an_error_in_one_process_ends_all(config_file: str, tmp_path: Path) -> None:
    def fail(self: Collector) -> None:
        raise ZeroDivisionError("a bug")

    words = ["--config", config_file, "--run-dir", str(tmp_path / "run")]
    codes, said = run_in(2, tmp_path, words, at_rollout(3, fail, rank=0))
    assert codes == [70, 1]  # the first with its traceback, which launch.main leaves to Python
    assert "ZeroDivisionError: a bug" in said
    assert len(errors(said)) == 1


def test_a_process_that_hangs_is_ended_by_its_watchdog_and_the_others_follow(
    config_file: str, tmp_path: Path
) -> None:
    words = ["--config", config_file, "--run-dir", str(tmp_path / "run"), "--watchdog-minutes", "0.1"]
    codes, said = run_in(2, tmp_path, words, at_rollout(3, lambda self: time.sleep(300), rank=1))
    assert codes == [1, 1], said
    assert "nothing has moved for 0.1 minutes" in said


@pytest.mark.parametrize("size", [1, 4])
def test_another_number_of_processes_continues_with_fresh_episodes_and_says_so(
    size: int, whole: RunDirectory, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(whole.path, run.path)
    codes, said = run_in(size, tmp_path / "said", ["--resume", str(run), "--total-steps", "480"])
    assert codes == [0] * size, said
    note = f"saved by 2 processes, this run has {size}: it continues with fresh episodes"
    assert said.count(note) == 1
    state = read_checkpoint(run.checkpoint_at(480))
    assert state["run"]["num_envs"] == 4 // size
    before = read_checkpoint(whole.checkpoint_at(400))
    assert state["learner"]["updates"] == before["learner"]["updates"] + 1


# Bad input


def test_environments_that_do_not_divide_by_the_processes_are_refused_by_all(
    config_file: str, tmp_path: Path
) -> None:
    words = ["--config", config_file, "--run-dir", str(tmp_path / "run")]
    codes, said = run_in(3, tmp_path, words)
    assert codes == [2, 2, 2]
    assert errors(said) == [
        "error: 4 environments cannot be shared equally by 3 processes: use 6",
    ]
    assert not (tmp_path / "run").exists()


def test_another_command_in_one_process_is_refused(config_file: str, tmp_path: Path) -> None:
    def work(rank: int) -> int:
        seed = ["--seed", str(rank)]
        words = ["--config", config_file, "--run-dir", str(tmp_path / "run"), *seed]
        return run_command(lambda: launch.main(words))

    members = Team(2, work, tmp_path)
    assert members.wait() == [2, 2]
    (line,) = errors("".join(members.said()))
    assert "process 1 has other settings than process 0" in line
    assert not (tmp_path / "run").exists()


def test_other_code_in_one_process_is_refused(config_file: str, tmp_path: Path) -> None:
    def change(rank: int) -> None:
        processes.source_digest = lambda: str(rank)

    words = ["--config", config_file, "--run-dir", str(tmp_path / "run")]
    codes, said = run_in(2, tmp_path, words, change)
    assert codes == [2, 2]
    assert len(errors(said)) == 1
    assert "process 1 has other source code than process 0" in said


def test_a_mistake_in_the_command_is_said_once(tmp_path: Path) -> None:
    codes, said = run_in(2, tmp_path, ["quick", "--games", "bigfsh"])
    assert codes == [2, 2]
    assert len(errors(said)) == 1
    assert "did you mean bigfish" in said


def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(team, "free_port", lambda: taken.getsockname()[1])

        def work(rank: int) -> int:
            # The second process would wait for the first one for as long as torch.distributed waits.
            return run_command(lambda: launch.main(["quick"])) if rank == 0 else 2

        members = Team(2, work, tmp_path)
        assert members.wait() == [2, 2]
    (line,) = errors(members.said()[0])
    assert "process 0 of 2 could not join the others" in line


def test_shares() -> None:
    config = tiny_run(games=["bigfish", "maze", "heist"], num_envs=66)
    assert share_problems(config, 2) == []
    assert share_problems(config, 4) == [
        "66 environments cannot be shared equally by 4 processes: use 60 or 72"
    ]
    ppo = tiny_run(num_envs=12, agent={"name": "ppo", "minibatches": 4})
    assert share_problems(ppo, 3) == []
    assert share_problems(ppo, 2) == [
        "minibatches must divide the number of environments of each process, but 4 does not divide 6"
    ]
    many = tiny_run(num_envs=12, agent={"batch_unrolls": 4})
    assert share_problems(many, 4) == []
    assert "at most 4 processes" in share_problems(many, 6)[0]


def test_what_is_not_thought_through_for_several_processes_is_refused() -> None:
    clear = tiny_run(num_envs=12, retention="clear")
    assert share_problems(clear, 2) == [
        "retention clear is not for runs of several processes: use one process, or retention none"
    ]
    told = tiny_run(num_envs=12, retention="xdg", policy={"tasks": {"id": "told"}})
    assert share_problems(told, 2) == []
    sequence = tiny_run(num_envs=12, sequence={"steps_per_task": 480})
    assert share_problems(sequence, 2) == ["sequences of tasks are not for several processes: use one"]
    assert share_problems(clear, 1) == share_problems(sequence, 1) == []


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    second = Place(rank=3, size=4, local_rank=1, local_size=2)
    assert second.device("auto") == second.device("cuda") == "cuda:1"
    assert second.device("cpu") == "cpu"
    assert Place().device("cuda:1") == "cuda:1"
    with pytest.raises(UserError, match="3 processes on a machine with 2 GPUs: start 2"):
        Place(0, 3, 0, 3).device("auto")
    with pytest.raises(UserError, match="cannot share cuda:0"):
        second.device("cuda:0")


def test_a_place_that_contradicts_itself_is_one_line() -> None:
    assert Place.read({}) == Place()
    whole = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Place.read(whole) == Place(1, 2, 1, 2)
    assert Place.read({"WORLD_SIZE": "1"}) == Place()
    for name, value in (("RANK", "2"), ("LOCAL_RANK", ""), ("WORLD_SIZE", "two")):
        with pytest.raises(UserError, match="start the processes with torchrun"):
            Place.read({**whole, name: value})
