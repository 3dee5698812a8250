"""The process ends, or hangs: signals, kills, aborts."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from agents import checkpoint
from benchmarks.faults.process import ROLLOUT
from benchmarks.faults.workspace import Outcome, Workspace, has_ended
from envs import ProcgenVecEnv
from experiments.stopping import SIGNALS


def kills(workspace: Workspace) -> Outcome:
    """SIGKILL at random moments, and between any two steps of writing a file; each followed by a resume."""
    outcome, run = Outcome(), workspace.run()
    workspace.reference  # noqa: B018  (made first)
    lengths, by_moment = [], 0
    while outcome.tried < workspace.kills:
        at_write = workspace.random.random() < 0.5
        process = workspace.start(
            run, _kill_at_write(workspace.random.randrange(1, 80)) if at_write else lambda: None
        )
        if not at_write:
            seconds = workspace.random.uniform(0, 0.7 * workspace.seconds)
            code = process.wait(seconds)
            if code is None:
                process.kill()
                code = process.wait()
                by_moment += 1
        else:
            code = process.wait()
        if code == -signal.SIGKILL:
            # Counted as survived when the run that it belongs to ends like the undisturbed one.
            outcome.tried += 1
            lengths.append(outcome.tried)
        elif has_ended(process, code):
            problems = workspace.compare(run)
            _settle(outcome, lengths, problems)
            run = workspace.run()
        else:
            _settle(outcome, lengths, [f"ended with {code}: {process.output.read_text()[-400:]}"])
            run = workspace.run()
    _settle(outcome, lengths, workspace.finish(run))
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


def signals(workspace: Workspace) -> Outcome:
    """Each signal that asks to stop, at random moments: the run saves, leaves with 128 + its number, is continued."""
    outcome, seconds, late = Outcome(), [], 0
    workspace.reference  # noqa: B018
    for attempt in itertools.count():
        if outcome.tried == 5 * len(SIGNALS):
            break
        number = SIGNALS[attempt % len(SIGNALS)]
        run = workspace.run()
        process = workspace.start(run)
        process.wait_for(run, ROLLOUT)
        if process.wait(workspace.random.uniform(0, 0.25 * workspace.seconds)) is not None:
            late += 1
            continue
        asked = time.monotonic()
        process.kill(number)
        code = process.wait()
        seconds.append(time.monotonic() - asked)
        if code == 0:  # it came when everything was done
            late += 1
            continue
        outcome.count([f"ended with {code}"] if code != 128 + number else workspace.finish(run))
    outcome.more |= {"slowest_seconds": round(max(seconds), 2), "came_after_the_end": late}
    return outcome


def aborts(workspace: Workspace) -> Outcome:
    """The native library ends the process in the middle of a step, as it does on errors of its own."""

    def plant() -> None:
        _at_step(7 * 10 + 3, os.abort)

    outcome, run = Outcome(), workspace.run()
    code = workspace.start(run, plant).wait()
    outcome.count([f"ended with {code}"] if code != -signal.SIGABRT else workspace.finish(run))
    return outcome


def hangs(workspace: Workspace) -> Outcome:
    """The environments never come back from a step: the watchdog saves the run, ends it and says where it was."""

    def plant() -> None:
        _at_step(7 * 10 + 3, lambda: time.sleep(3600))

    outcome, run = Outcome(), workspace.run()
    process = workspace.start(run, plant, watchdog_minutes=0.1)
    code = process.wait()
    said = process.output.read_text()
    problems = [f"ended with {code}"] if code != 1 else []
    problems += [] if "in: environment" in said and "saved" in said else [said[-300:]]
    problems += [] if list(run.diagnostics.glob("stuck_*.txt")) else ["no stacks"]
    patience = "checkpoint/experiment/watchdog_minutes"  # which this run was given less of
    outcome.count(problems or [name for name in workspace.finish(run) if name != patience])
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
