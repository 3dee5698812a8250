"""Suites as users start them: killed, continued, failed; runs are processes of a tiny network on the real games."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UserError
from experiments.suites.command_line import main
from experiments.suites.definition import read
from experiments.suites.jobs import TRAIN
from experiments.suites.plan import Options, make_plan
from experiments.suites.runner import Runner
from records.directory import RunDirectory
from records.lock import RunLock
from records.state import Phase, measured_speeds, run_directories, state_of

SUITE = """
summary = "tiny"
preset = "quick"
seeds = [0]
[settings]
games = ["fruitbot", "chaser"]
num_envs = 4
encoder.channels = [4]
encoder.hidden = 8
core.width = 8
core.heads = 2
core.feedforward = 8
core.layers = 1
agent.rollout_steps = 20
total_steps = {steps}
checkpoint_every_steps = 160
log_every_steps = 80
env_threads = 0
torch_threads = 1
device = "cpu"
videos = false
evaluation_episodes = 1
evaluation_splits = ["train"]
[grid]
policy = {policies}
"""


def write_suite(folder: Path, steps: int, policies: str = '["fake_srwm", "srwm"]') -> Path:
    path = folder / "tiny.toml"
    path.write_text(SUITE.format(steps=steps, policies=policies))
    return path


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, str(TRAIN), "suite", "tiny.toml", *options]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not what() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert what()


def contents(run: RunDirectory) -> dict[str, bytes]:
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and "evaluations" not in path.parts
    }


def test_killed_and_started_again_it_makes_only_what_is_missing(tmp_path: Path) -> None:
    write_suite(tmp_path, 640)
    first, second = (RunDirectory(tmp_path / f"runs/tiny/{name}-seed0") for name in ("fake_srwm", "srwm"))
    process = start(tmp_path)
    try:
        wait_for(lambda: bool(second.checkpoint_files()), process)
        # Both the suite and the run that it is making, without a warning.
        process.kill()
        process.communicate()
        (orphan,) = _processes_of(second.path, tmp_path)
        os.kill(orphan, signal.SIGKILL)
    finally:
        process.kill()
    finished = contents(first)
    assert "evaluation.json" in finished
    done = start(tmp_path)
    out, err = done.communicate(timeout=300)
    assert (done.returncode, err) == (0, "")
    assert "fake_srwm-seed0: done" in out
    assert "fake_srwm-seed0: running" not in out
    assert "srwm-seed0: running, continued at " in out
    assert contents(first) == finished
    rows = [line.split(",")[0] for line in second.progress_file.read_text().splitlines()[1:]]
    assert rows == [str(step) for step in range(80, 641, 80)]
    assert (second.path / "command.txt").read_text().count("--resume") == 1
    # And a third time there is nothing to do.
    before = contents(second)
    again = start(tmp_path)
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, "")
    assert "All 2 runs are done: runs/tiny" in out
    assert contents(second) == before


def _processes_of(run: Path, folder: Path) -> list[int]:
    """Processes whose command line names the run."""
    name, found = str(run.relative_to(folder)), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                here = (entry / "cwd").resolve() == folder.resolve()
            except OSError:
                continue
            if here and name.encode() in words:
                found.append(int(entry.name))
    return found


def test_sigterm_stops_the_runs_and_they_save(tmp_path: Path) -> None:
    write_suite(tmp_path, 100_000_000, '["srwm"]')
    run = RunDirectory(tmp_path / "runs/tiny/srwm-seed0")
    process = start(tmp_path)
    try:
        wait_for(
            lambda: run.progress_file.exists() and run.progress_file.read_text().count("\n") > 2, process
        )
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (143, "")
    assert "Continue with: python train.py suite tiny.toml" in out
    assert _processes_of(run.path, tmp_path) == []
    planned = make_plan(read(tmp_path / "tiny.toml"), Options(runs=tmp_path / "runs")).runs[0]
    state = state_of(planned.run, planned.config)
    assert state.phase is Phase.UNFINISHED
    assert state.saved == state.logged > 0
    (path,) = run_directories(tmp_path / "runs")
    assert path == run.path
    assert measured_speeds([path]) == {("srwm", "early_pool", "appo"): state.speed}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Runner]:
    """A runner whose runs are a Python program instead of train.py."""
    program = tmp_path / "program.py"
    monkeypatch.setattr("experiments.suites.jobs.TRAIN", program)
    monkeypatch.setattr("experiments.suites.runner.POLL_SECONDS", 0.02)

    def make(text: str, policies: str = '["fake_srwm", "srwm"]', **options: object) -> Runner:
        program.write_text(text)
        suite = read(write_suite(tmp_path, 160, policies))
        return Runner(make_plan(suite, Options(runs=tmp_path / "runs")), **options)  # type: ignore[arg-type]

    return make  # type: ignore[return-value]


FINISH = """
import os, sys, time
run = sys.argv[sys.argv.index("--run-dir") + 1]
os.makedirs(run + "/checkpoints")
last = "checkpoints/step_000000000160.ckpt"
for name in ("config.json", "evaluation.json", last):
    open(run + "/" + name, "w").write('{"checkpoint": "' + last + '"}')
"""


def test_a_run_that_fails_is_named_and_the_others_are_made(fake: Callable[..., Runner]) -> None:
    failing = 'import sys\nif "fake_srwm" in sys.argv[2]: sys.exit("error: no luck")\n'
    runner = fake(failing + FINISH)
    assert runner.run() == 1
    assert [(job.failure, job.state.phase) for job in runner.jobs] == [
        ("code 1: error: no luck", Phase.MISSING),
        (None, Phase.FINISHED),
    ]
    assert runner.log_of(runner.jobs[0].planned).read_text() == "error: no luck\n"


def test_a_run_that_ends_well_without_having_ended_has_failed(fake: Callable[..., Runner]) -> None:
    runner = fake("print('bye')", '["srwm"]')
    assert runner.run() == 1
    assert runner.jobs[0].failure == "code 0: bye"


def test_side_by_side_they_share_devices_and_processors(
    fake: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    text = 'import os\nprint(os.environ["OMP_NUM_THREADS"])\nimport time; time.sleep(0.3)\n'
    runner = fake(text + FINISH, jobs=2, devices=("cuda:0", "cuda:1"))
    most = 0

    def watch(runner: Runner) -> None:
        nonlocal most
        most = max(most, len(runner.running))

    assert runner.run(watch) == 0
    assert most == 2
    assert {job.device for job in runner.jobs} == {"cuda:0", "cuda:1"}
    assert {runner.log_of(job.planned).read_text() for job in runner.jobs} == {"3\n"}


def test_a_run_that_somebody_else_makes_is_waited_for(fake: Callable[..., Runner]) -> None:
    runner = fake(FINISH, '["srwm"]')
    planned = runner.jobs[0].planned
    logs = runner.plan.directory / "logs"
    logs.mkdir(parents=True)
    lock = RunLock(logs / f"{planned.name}.lock")
    lock.acquire()
    seen: list[bool] = []

    def watch(runner: Runner) -> None:
        seen.append(runner.jobs[0].elsewhere)
        if len(seen) == 3:
            planned.run.create(planned.config, [])
            planned.run.checkpoint_at(160).write_text("")
            planned.run.evaluation_file.write_text('{"checkpoint": "step_000000000160.ckpt"}')
            lock.release()

    assert runner.run(watch) == 0
    assert seen[:3] == [True, True, True]
    assert runner.jobs[0].started_at is None


def test_a_run_that_was_killed_before_its_first_checkpoint_is_continued(fake: Callable[..., Runner]) -> None:
    text = FINISH.replace("--run-dir", "--resume").replace('/checkpoints")', '/checkpoints", exist_ok=True)')
    runner = fake(text, '["srwm"]')
    planned = runner.jobs[0].planned
    planned.run.create(planned.config, ["from before"])
    runner.jobs[0].state = state_of(planned.run, planned.config)
    assert runner.jobs[0].state.phase is Phase.UNFINISHED
    assert runner.run() == 0
    assert (planned.run.path / "command.txt").read_text() == "'from before'\n"


class TestCommandLine:
    """``python train.py suite``, in this process."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("experiments.suites.command_line.Runner", None)

    def test_overview(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == main(["--help"]) == 0
        shown = capsys.readouterr().out
        assert re.search("paper-ablation +ablations of SRWM", shown)

    def test_a_dry_run_shows_runs_and_cost_and_makes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["paper-ablation", "--dry-run", "--seeds", "0", "--only", "srwm-*", "reset*", "--jobs", "2"]
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "300,000,000" in shown
        assert "evaluation of srwm" in shown
        assert "horizon-1" not in shown
        assert (
            "3 runs in runs/paper-ablation; left: 900,000,000 steps, about 312.50 hours with 2 at a time"
            in shown
        )
        assert "('?': assumed" in shown
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("line", "part"),
        [
            ("paper-esy6", "unknown suite 'paper-esy6': did you mean paper-easy6"),
            ("paper-easy6 --jobs 0", "--jobs is 0"),
            ("paper-easy6 --devices cuda:99", "device 'cuda:99'"),
            ("paper-easy6 --job 2", "unknown option '--job': did you mean --jobs?"),
            ("paper-easy6 --policy lstm", "unknown option '--policy'"),
            ("paper-easy6 paper-memory4", "name one suite"),
            ("paper-easy6 --scale lots", "scale is 'lots': give a number"),
            ("paper-easy6 --only lst", "matches no run"),
            ("--jobs 2", "name a suite"),
        ],
    )
    def test_bad_input_is_one_line(self, line: str, part: str, tmp_path: Path) -> None:
        with pytest.raises(UserError) as raised:
            main(line.split())
        assert part in str(raised.value)
        assert list(tmp_path.iterdir()) == []
