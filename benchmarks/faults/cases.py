"""The faults: each is made to happen, then the run is continued and compared with one that nothing happened to."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import CheckpointError, checkpoint, read_checkpoint
from agents.checkpoint import FORMAT
from agents.rewards import ClippedReward
from benchmarks.faults.lives import ROLLOUT, TOTAL_STEPS, Life, Remains, start
from envs import ProcgenVecEnv
from records.directory import RunDirectory


@dataclass
class Outcome:
    """How often a fault was tried and survived, and what else is worth telling."""

    tried: int = 0
    survived: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def count(self, problems: list[str]) -> None:
        """One more attempt, survived if there are no `problems`."""
        self.tried += 1
        self.survived += not problems
        if problems:
            self.more.setdefault("problems", []).append(problems[:5])


class Scene:
    """Where faults happen, and a run that nothing happens to."""

    def __init__(self, folder: Path, kills: int, flips: int, seed: int) -> None:
        self.folder, self.kills, self.flips = folder, kills, flips
        self.random = random.Random(seed)
        self._number = 0

    def run(self, folder: Path | None = None) -> RunDirectory:
        """A run directory that does not exist yet."""
        self._number += 1
        return RunDirectory((folder or self.folder) / f"run{self._number}")

    def output(self, run: RunDirectory) -> Path:
        """Where a run prints."""
        return self.folder / f"{run.path.name}.txt"

    def start(self, run: RunDirectory, prepare: Callable[[], None] = lambda: None, **changes: Any) -> Life:
        """See `lives.start`."""
        return start(run, self.output(run), prepare, **changes)

    @functools.cached_property
    def undisturbed(self) -> RunDirectory:
        """A run that ended by itself."""
        run = self.run()
        life = self.start(run)
        code = life.wait()
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}: {life.output.read_text()}")
        self.seconds = time.monotonic() - life.began
        return run

    @functools.cached_property
    def reference(self) -> Remains:
        """What the undisturbed run left."""
        return Remains.of(self.undisturbed)

    def finish(self, run: RunDirectory) -> list[str]:
        """Continue `run` to its end; what is wrong with it then."""
        life = self.start(run)
        if (code := life.wait()) != 0:
            return [f"ended with {code}: {life.output.read_text()[-300:]}"]
        return self.compare(run)

    def compare(self, run: RunDirectory) -> list[str]:
        """How `run`, which has ended, differs from the undisturbed one."""
        return self.reference.differences(Remains.of(run))


# Ends of the process


def kills(scene: Scene) -> Outcome:
    """SIGKILL at random moments, and between any two steps of writing a file; each followed by a resume."""
    outcome, run = Outcome(), scene.run()
    scene.reference  # noqa: B018  (made first)
    lengths, by_moment = [], 0
    while outcome.tried < scene.kills:
        at_write = scene.random.random() < 0.5
        life = scene.start(run, _kill_at_write(scene.random.randrange(1, 80)) if at_write else lambda: None)
        if not at_write:
            life_seconds = scene.random.uniform(0, 0.7 * scene.seconds)
            code = life.wait(life_seconds)
            if code is None:
                life.kill()
                code = life.wait()
                by_moment += 1
        else:
            code = life.wait()
        if code == -signal.SIGKILL:
            # Counted as survived when the run that it belongs to ends like the undisturbed one.
            outcome.tried += 1
            lengths.append(outcome.tried)
        elif code == 0:
            problems = scene.compare(run)
            _settle(outcome, lengths, problems)
            run = scene.run()
        else:
            _settle(outcome, lengths, [f"ended with {code}: {life.output.read_text()[-400:]}"])
            run = scene.run()
    _settle(outcome, lengths, scene.finish(run))
    outcome.more |= {"at_random_moments": by_moment, "while_writing": outcome.tried - by_moment}
    return outcome


def _settle(outcome: Outcome, lengths: list[int], problems: list[str]) -> None:
    outcome.survived += 0 if problems else len(lengths)
    if problems:
        outcome.more.setdefault("problems", []).append(problems[:5])
    lengths.clear()


def _kill_at_write(number: int) -> Callable[[], None]:
    """Makes a process die at the `number`-th of the calls that files are written, renamed or deleted with."""

    def plant() -> None:
        left = number

        def dying(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*arguments, **named)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for name in ("replace", "fsync", "truncate", "unlink", "rename"):
            setattr(os, name, dying(getattr(os, name)))
        write = checkpoint._write

        def half(file: Any, header: bytes, tensors: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                file.write(header[: len(header) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            write(file, header, tensors)

        checkpoint._write = half

    return plant


def signals(scene: Scene) -> Outcome:
    """SIGTERM and SIGINT at random moments: the run saves and leaves with 143 or 130, and is continued."""
    outcome, seconds, late = Outcome(), [], 0
    scene.reference  # noqa: B018
    for attempt in itertools.count():
        if outcome.tried == 20:
            break
        number = (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        run = scene.run()
        life = scene.start(run)
        life.wait_for(run, ROLLOUT)
        if life.wait(scene.random.uniform(0, 0.25 * scene.seconds)) is not None:
            late += 1
            continue
        asked = time.monotonic()
        life.kill(number)
        code = life.wait()
        seconds.append(time.monotonic() - asked)
        if code == 0:  # it came when everything was done
            late += 1
            continue
        outcome.count([f"ended with {code}"] if code != 128 + number else scene.finish(run))
    outcome.more |= {"slowest_seconds": round(max(seconds), 2), "came_after_the_end": late}
    return outcome


def aborts(scene: Scene) -> Outcome:
    """The native library ends the process in the middle of a step, as it does on errors of its own."""

    def plant() -> None:
        _at_step(7 * 10 + 3, os.abort)

    outcome, run = Outcome(), scene.run()
    code = scene.start(run, plant).wait()
    outcome.count([f"ended with {code}"] if code != -signal.SIGABRT else scene.finish(run))
    return outcome


def hangs(scene: Scene) -> Outcome:
    """The environments never come back from a step: the watchdog saves the run, ends it and says where it was."""

    def plant() -> None:
        _at_step(7 * 10 + 3, lambda: time.sleep(3600))

    outcome, run = Outcome(), scene.run()
    life = scene.start(run, plant, watchdog_minutes=0.1)
    code = life.wait()
    said = life.output.read_text()
    problems = [f"ended with {code}"] if code != 1 else []
    problems += [] if "in: environment" in said and "saved" in said else [said[-300:]]
    problems += [] if list(run.diagnostics.glob("stuck_*.txt")) else ["no stacks"]
    patience = "checkpoint/experiment/watchdog_minutes"  # which this run was given less of
    outcome.count(problems or [name for name in scene.finish(run) if name != patience])
    return outcome


def _at_step(number: int, action: Callable[[], object]) -> None:
    """Do `action` within the `number`-th step of the environments of this process."""
    wait, left = ProcgenVecEnv.step_wait, number

    def step_wait(self: ProcgenVecEnv) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            action()
        return wait(self)

    ProcgenVecEnv.step_wait = step_wait  # type: ignore[method-assign]


# File systems


@contextmanager
def small_disk(scene: Scene, megabytes: int) -> Iterator[Path]:
    """A file system of that size."""
    place = scene.folder / f"disk{time.monotonic_ns()}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def full_disk(scene: Scene) -> Outcome:
    """The disk fills up during training; room is made while it goes on, or only after it has ended."""
    outcome = Outcome()
    scene.reference  # noqa: B018
    for room_comes_back in [True, False] * 3:
        with small_disk(scene, 8) as disk:
            run = scene.run(disk)
            life = scene.start(run)
            life.wait_for(run, ROLLOUT * scene.random.randint(1, 5))
            _fill(disk)
            if room_comes_back:
                time.sleep(0.15 * scene.seconds)
                (disk / "filler").unlink()
            code = life.wait()
            said = life.output.read_text()
            problems = _unreadable(run)
            if code == 0 and (room_comes_back or "could not" not in said):
                outcome.count(problems + scene.compare(run))
                continue
            problems += [f"ended with {code}: {said[-300:]}"] if code not in (1, 2) else []
            problems += _more_than_a_line(said)
            (disk / "filler").unlink(missing_ok=True)
            outcome.count(problems or scene.finish(run))
    return outcome


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass


def read_only(scene: Scene) -> Outcome:
    """The directory becomes read-only during training, and writable again, or not before the run has ended."""
    outcome = Outcome()
    scene.reference  # noqa: B018
    for it_ends in [True, False] * 3:
        run = scene.run()
        life = scene.start(run)
        life.wait_for(run, ROLLOUT * scene.random.randint(1, 5))
        with _read_only(scene, run.path):
            if it_ends:
                time.sleep(0.15 * scene.seconds)
            else:
                code = life.wait()
        if it_ends:
            code = life.wait()
        said = life.output.read_text()
        problems = _unreadable(run)
        if code == 0:
            outcome.count(problems + scene.compare(run))
            continue
        problems += [f"ended with {code}: {said[-300:]}"] if it_ends or code not in (1, 2) else []
        problems += _more_than_a_line(said)
        outcome.count(problems or scene.finish(run))
    return outcome


@contextmanager
def _read_only(scene: Scene, path: Path) -> Iterator[None]:
    """Within it, `path` leads to a read-only copy of what is there: the file system itself is busy."""
    shadow = scene.folder / f"shadow{time.monotonic_ns()}"
    while True:
        try:
            shutil.copytree(path, shadow, symlinks=True, dirs_exist_ok=True)
            break
        except (shutil.Error, FileNotFoundError):  # files come and go
            continue
    subprocess.run(["mount", "--bind", shadow, path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _more_than_a_line(said: str) -> list[str]:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    return [f"said {said[-300:]}"] if len(errors) != 1 or "Traceback" in said else []


def _unreadable(run: RunDirectory) -> list[str]:
    found = []
    for path in run.checkpoint_files():
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            found.append(str(error))
    return found


def deleted_directory(scene: Scene) -> Outcome:
    """The whole run directory disappears during training: it is made anew, and the weights are those of always."""
    outcome = Outcome()
    for _ in range(4):
        run = scene.run()
        life = scene.start(run)
        life.wait_for(run, ROLLOUT * scene.random.randint(1, 6))
        for _ in range(20):
            shutil.rmtree(run.path, ignore_errors=True)
            if not run.path.exists():
                break
        code = life.wait()
        if code != 0:
            outcome.count([f"ended with {code}: {life.output.read_text()[-300:]}"])
            continue
        left = Remains.of(run)
        known = {row["time/total_timesteps"] for row in left.rows}
        problems = [
            name for name in scene.reference.differences(left) if name.startswith(("checkpoint", "eval"))
        ]
        problems += [] if run.config_file.exists() else ["no configuration"]
        problems += [] if str(TOTAL_STEPS) in known else ["the last row is missing"]
        outcome.count(problems)
    return outcome


def two_runs(scene: Scene) -> Outcome:
    """A second process in the same directory is refused; after a kill the directory is free at once."""
    outcome, run = Outcome(), scene.run()
    first = scene.start(run)
    first.wait_for(run, ROLLOUT)
    second = start(run, scene.folder / "second.txt")
    code, said = second.wait(), second.output.read_text()
    problems = [] if code == 2 and f"in use by process {first.pid}" in said else [f"{code}: {said}"]
    outcome.count(problems + ([] if first.wait() == 0 else ["the first ended"]) + scene.compare(run))
    return outcome


# Files


def truncation(scene: Scene) -> Outcome:
    """A checkpoint cut off at every kilobyte is refused in one line."""
    outcome = Outcome()
    data = scene.undisturbed.checkpoint_at(TOTAL_STEPS).read_bytes()
    for length in range(0, len(data), 1024):
        outcome.count(_refusal_problems(scene, data[:length]))
    outcome.more |= {"file_kb": len(data) // 1024}
    return outcome


def flipped_bits(scene: Scene) -> Outcome:
    """A checkpoint with one bit flipped is refused in one line."""
    outcome = Outcome()
    data = bytearray(scene.undisturbed.checkpoint_at(TOTAL_STEPS).read_bytes())
    for _ in range(scene.flips):
        place, bit = scene.random.randrange(len(data)), 1 << scene.random.randrange(8)
        data[place] ^= bit
        outcome.count(_refusal_problems(scene, bytes(data)))
        data[place] ^= bit
    return outcome


def _refusal_problems(scene: Scene, data: bytes) -> list[str]:
    path = scene.folder / "damaged.ckpt"
    path.write_bytes(data)
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        return ["more than a line"] if "\n" in str(error) else []
    except BaseException as error:
        return [repr(error)]
    return ["accepted"]


def damaged_newest(scene: Scene) -> Outcome:
    """The newest checkpoints of a run are damaged: it goes on from the newest whole one, and says so."""
    outcome = Outcome()
    for how_many in (1, 2):
        run = scene.run()
        shutil.copytree(scene.undisturbed.path, run.path)
        for path in run.checkpoint_files()[-how_many:]:
            data = bytearray(path.read_bytes())
            data[scene.random.randrange(len(data))] ^= 1
            path.write_bytes(data)
        problems = scene.finish(run)
        said = scene.output(run).read_text()
        outcome.count(problems + ([] if said.count("skipped a checkpoint") == how_many else [said[:300]]))
    return outcome


class _Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def code_in_files(scene: Scene) -> Outcome:
    """Pickles and archives that would run a command when they are loaded do not."""
    outcome, mark = Outcome(), scene.folder / "exploded"
    path = scene.folder / "bomb.ckpt"
    calls: list[tuple[Any, ...]] = [
        (os.system, f"touch {mark}"),
        (subprocess.call, ["touch", str(mark)]),
        (exec, f"open({str(mark)!r}, 'w')"),
        (eval, f"open({str(mark)!r}, 'w')"),
        (Path.touch, mark),
        (np.load, str(mark)),
        (torch.load, str(mark)),
        (bytearray, 1 << 40),
    ]
    for function, *arguments in calls:
        bomb = _Bomb(function, *arguments)
        parts = [bomb, [bomb], {"format": FORMAT, "version": 1, "meta": "{}", "tensors": {"0": bomb}}]
        for part in parts:
            for write in (
                lambda part: path.write_bytes(pickle.dumps(part, 2)),
                lambda part: path.write_bytes(pickle.dumps(part)),
                lambda part: torch.save(part, path),
                lambda part: torch.save(part, path, _use_new_zipfile_serialization=False),
                lambda part: torch.save(part, path, pickle_protocol=4),
            ):
                write(part)
                problems = _refusal_problems(scene, path.read_bytes())
                outcome.count(problems + (["it ran"] if mark.exists() else []))
    return outcome


# Numbers


def not_finite(scene: Scene) -> Outcome:
    """A reward that is not a number: the update is undone, and the run stops with a bundle, or goes on without it."""
    outcome = Outcome()
    scene.reference  # noqa: B018

    def plant() -> None:
        original, left = ClippedReward.__call__, 7 * 10 + 3

        def poisoned(self: ClippedReward, rewards: Any, dones: Any) -> Any:
            nonlocal left
            left -= 1
            found = original(self, rewards, dones)
            return found * np.nan if left == 0 else found

        ClippedReward.__call__ = poisoned  # type: ignore[method-assign]

    run = scene.run()
    life = scene.start(run, plant)
    code, said = life.wait(), life.output.read_text()
    problems = [f"ended with {code}"] if code != 1 else []
    problems += [] if "not finite: batch.rewards" in said else [said[-300:]]
    bundles = list(run.diagnostics.glob("not_finite_*.ckpt"))
    problems += [] if len(bundles) == 1 else ["no bundle"]
    outcome.count(problems or scene.finish(run))

    run = scene.run()
    agent = {"rollout_steps": 10, "batch_unrolls": 2, "on_nan": "skip"}
    life = scene.start(run, plant, agent=agent)
    code, said = life.wait(), life.output.read_text()
    weights = read_checkpoint(run.checkpoint_at(TOTAL_STEPS))["policy"].values() if code == 0 else []
    fine = code == 0 and "going on without it" in said and all(w.isfinite().all() for w in weights)
    outcome.count([] if fine else [f"{code}: {said[-300:]}"])
    return outcome


CASES: dict[str, Callable[[Scene], Outcome]] = {
    case.__name__: case
    for case in (
        kills,
        signals,
        aborts,
        hangs,
        *((full_disk, read_only) if os.geteuid() == 0 else ()),
        deleted_directory,
        two_runs,
        truncation,
        flipped_bits,
        damaged_newest,
        code_in_files,
        not_finite,
    )
}
"""By name."""
