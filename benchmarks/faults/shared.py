"""Runs that two processes share: one of them is killed, and both are started again, as torchrun does."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path

from agents.distributed import joined
from benchmarks.faults.artifacts import Artifacts
from benchmarks.faults.process import tiny_run
from benchmarks.faults.workspace import Outcome, Workspace, unreadable_checkpoints
from benchmarks.team import Team
from common.cli import run_command
from experiments.launch import resume, train
from records.directory import RunDirectory

PROCESSES = 2
ALONE_SECONDS = 20.0
"""In which those that are left notice that another has died; in this time none of them is helped."""


def shared_kills(workspace: Workspace) -> Outcome:
    """SIGKILL to one of two processes at random moments: the other leaves with one line, and both are continued."""
    outcome = Outcome()
    began = time.monotonic()
    reference = _finished(workspace)
    seconds = time.monotonic() - began
    run, starting, slowest = workspace.run(), 0, 0.0
    pending = 0
    while outcome.tried + pending < workspace.kills:
        team = _start(workspace, run)
        if not _ends_within(team, workspace.random.uniform(0, seconds)):
            victim = workspace.random.randrange(PROCESSES)
            other = 1 - victim
            team.kill(victim)
            killed = time.monotonic()
            if not _has_ended(team, other, ALONE_SECONDS):
                # It still waits for processes to come, which only a launcher can end.
                starting += 1
                team.kill(other, signal.SIGTERM)
            codes = team.wait()
            slowest = max(slowest, time.monotonic() - killed)
            lines = [line for line in team.said()[other].splitlines() if line.startswith("error: ")]
            pending += 1
            problems = unreadable_checkpoints(run)
            problems += (
                [] if codes[other] in (0, 1, 2, -signal.SIGTERM) else [f"the other ended with {codes}"]
            )
            problems += [] if len(lines) <= 1 else [f"said {lines}"]
            if problems:
                outcome.count(problems)
                pending -= 1
            continue
        codes = team.wait()
        _settle(outcome, pending, _problems(codes, team, run, reference))
        run, pending = workspace.run(), 0
    team = _start(workspace, run)
    codes = team.wait()
    _settle(outcome, pending, _problems(codes, team, run, reference))
    outcome.more |= {"while_starting": starting, "slowest_seconds": round(slowest, 1)}
    return outcome


def _settle(outcome: Outcome, pending: int, problems: list[str]) -> None:
    """The kills of a run are survived if it ends like the undisturbed one."""
    for _ in range(pending):
        outcome.count(problems)


def _problems(codes: list[int], team: Team, run: RunDirectory, reference: Artifacts) -> list[str]:
    if codes != [0] * PROCESSES and "has ended" not in "".join(team.said()):
        return [f"ended with {codes}: {team.said()[0][-300:]}"]
    return reference.differences(Artifacts.of(run))


def _finished(workspace: Workspace) -> Artifacts:
    run = workspace.run()
    team = _start(workspace, run)
    codes = team.wait()
    if codes != [0] * PROCESSES:
        raise RuntimeError(f"the undisturbed run ended with {codes}: {team.said()}")
    return Artifacts.of(run)


def _start(workspace: Workspace, run: RunDirectory) -> Team:
    folder = Path(workspace.folder) / f"team{time.monotonic_ns()}"
    folder.mkdir()
    return Team(PROCESSES, lambda rank: _work(run), folder)


def _work(run: RunDirectory) -> int:
    logging.lastResort = logging.StreamHandler(sys.stderr)

    def begin_or_go_on() -> int:
        with joined() as exchange:
            if exchange.on_first(run.config_file.exists):
                return resume(run.path, exchange=exchange, again=True)
            return train(tiny_run(), run.path, exchange=exchange)

    return run_command(begin_or_go_on)


def _ends_within(team: Team, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if team.poll():
            return True
        time.sleep(0.002)
    return False


def _has_ended(team: Team, rank: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        team.poll()
        if team.has_ended(rank):
            return True
        time.sleep(0.01)
    return False
