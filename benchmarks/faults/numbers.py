"""Numbers that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents import read_checkpoint
from agents.rewards import ClippedReward
from benchmarks.faults.process import TOTAL_STEPS
from benchmarks.faults.workspace import Outcome, Workspace


def not_finite(workspace: Workspace) -> Outcome:
    """A reward that is not a number: the update is undone, and the run stops with a bundle, or goes on without it."""
    outcome = Outcome()
    workspace.reference  # noqa: B018

    def plant() -> None:
        original, left = ClippedReward.__call__, 7 * 10 + 3

        def poisoned(self: ClippedReward, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            found = original(self, *arguments)
            return found * np.nan if left == 0 else found

        ClippedReward.__call__ = poisoned  # type: ignore[method-assign, assignment]

    run = workspace.run()
    process = workspace.start(run, plant)
    code, said = process.wait(), process.output.read_text()
    problems = [f"ended with {code}"] if code != 1 else []
    problems += [] if "not finite: batch.rewards" in said else [said[-300:]]
    bundles = list(run.diagnostics.glob("not_finite_*.ckpt"))
    problems += [] if len(bundles) == 1 else ["no bundle"]
    outcome.count(problems or workspace.finish(run))

    run = workspace.run()
    agent = {"rollout_steps": 10, "batch_unrolls": 2, "on_nan": "skip"}
    process = workspace.start(run, plant, agent=agent)
    code, said = process.wait(), process.output.read_text()
    weights = (
        read_checkpoint(run.checkpoint_at(TOTAL_STEPS))["learner"]["policy"].values() if code == 0 else []
    )
    fine = code == 0 and "going on without it" in said and all(w.isfinite().all() for w in weights)
    outcome.count([] if fine else [f"{code}: {said[-300:]}"])
    return outcome
