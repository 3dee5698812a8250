"""What the words of a command name: runs, directories that hold some, and trained agents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agents.checkpoint import SUFFIX
from common.errors import UserError
from envs import normalized_score
from evaluation.report.runs import Curve, Run
from evaluation.trained import CARD_SUFFIX, read_card, trained_checkpoint, trained_names
from evaluation.trained.history import STEPS, History, from_plain
from records.config import from_json
from records.directory import RUNS, RunDirectory, group_of, read_record

TRAINED = "trained"
"""Folder of `RUNS` for what reports evaluate of trained agents, which may lie where nobody may write."""


@dataclass(frozen=True)
class TrainedAgentRun(Run):
    """The training that made an exported agent, as far as its card tells of it; its directory holds evaluations alone.

    Attributes:
        weights: The agent's checkpoint.
        history: Of its training.
    """

    weights: Path
    history: History

    @property
    def name(self) -> str:
        """What the agent is called."""
        return self.weights.name.removesuffix(SUFFIX)

    @property
    def label(self) -> str:
        """What the agent is called: each is a group of its own."""
        return self.name

    @property
    def checkpoint(self) -> Path:
        """The agent's."""
        return self.weights

    @property
    def steps(self) -> int:
        """Environment steps of all training that made it."""
        return self.history.steps

    @property
    def finished(self) -> bool:
        """True: what was exported is what there is."""
        return True

    def curve(self) -> Curve:
        """Training returns as its card keeps them, at even times, since a card knows only how long it took in all."""
        columns = {name: np.array(values, dtype=np.float64) for name, values in self.history.curve.items()}
        steps = columns.pop(STEPS, np.zeros(0))
        hours = np.nan if self.history.hours is None else self.history.hours
        normalized = [normalized_score(game, self.config.mode, returns) for game, returns in columns.items()]
        mean = np.mean(normalized, axis=0) if normalized else np.zeros(0)
        return Curve(steps, steps / max(1, self.steps) * hours * 3600, mean, columns)


def find_runs(words: Sequence[str]) -> list[Run]:
    """The runs that `words` name: run directories, directories that hold some, or exported agents.

    An agent goes by its name, if it came with the suite, or by its file of weights, with its card beside it.

    Raises:
        UserError: a word names none of these, or a run's settings cannot be read.
    """
    found: dict[Path, Run] = {}
    for word in words:
        path = Path(word)
        agent = None if path.is_dir() else _trained_agent(word)
        for run in _runs_at(path) if agent is None else [agent]:
            found.setdefault(run.directory.path.resolve(), run)
    return list(found.values())


def _trained_agent(word: str) -> TrainedAgentRun | None:
    path = Path(word)
    weights = trained_checkpoint(word) if path.suffix != SUFFIX else path if path.is_file() else None
    if weights is None:
        return None
    name = weights.name.removesuffix(SUFFIX)
    try:
        card = read_card(name, weights.parent)
        scored = {score["split"]: int(score["episodes"]) for score in card["scores"]}
        config, history = from_json(card["settings"]), from_plain(card)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{weights} has no card that can be read beside it ({name}{CARD_SUFFIX}): name its run, "
            f"or an agent that eval.py export has written"
        ) from error
    if config.sequence.active:
        raise UserError(
            f"{word} was trained on tasks one after another, and its card does not say what came of each: name its run"
        )
    config = replace(
        config,
        total_steps=history.steps,
        evaluation_splits=tuple(scored),
        evaluation_episodes=min(scored.values()),
    )
    # Others may have the same name, elsewhere or later: those of more training.
    return TrainedAgentRun(RunDirectory(RUNS / TRAINED / f"{name}-{digest}"), config, weights, history)


def _runs_at(path: Path) -> list[Run]:
    """The run that `path` is, or those in it."""
    else_name = "name runs of train.py, directories of runs, or trained agents"
    if not path.is_dir():
        raise UserError(f"{path} is not a directory: {else_name} ({', '.join(trained_names())})")
    directories = [path] if (path / "config.json").is_file() else _directories_in(path)
    if not directories:
        raise UserError(f"{path} holds no run: {else_name}")
    runs = map(RunDirectory, directories)
    return [Run(run, run.read_config()) for run in runs]


def _directories_in(directory: Path) -> list[Path]:
    """The runs in a directory: those of a suite in the order of its groups, others by name."""
    groups = [item["group"] for item in (read_record(directory) or {}).get("groups", [])]
    order = {group: place for place, group in enumerate(groups)}
    found = sorted(file.parent for file in directory.glob("*/config.json"))
    return sorted(found, key=lambda path: order.get(group_of(path.name), len(order)))
