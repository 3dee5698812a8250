"""From a run or a checkpoint to the agent in it, and to what it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import agents
from agents import Agent
from agents.checkpoint import SUFFIX, existing_checkpoint
from agents.spaces import image_and_actions
from common import config
from common.errors import UserError
from envs import Task, parse_task
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from evaluation.trained import trained_checkpoint, trained_names
from policies.precision import for_playing
from records import selection
from records.directory import RunDirectory, checkpoint_step


@dataclass(frozen=True)
class TrainedSequence:
    """The tasks of a sequence, where it named them; the rest follows from the games."""

    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingInfo:
    """What an agent was trained on, as far as its checkpoint says.

    Attributes:
        games: The games; none if the checkpoint was not made by train.py.
        mode: The mode of the games.
        levels: The levels, a split or a range "A:B".
        twist: What is withheld or asked, as for `envs.ProcgenVecEnv`.
        evaluation_greedy: Whether its own final evaluation takes the most likely actions.
        sequence: Of tasks one after another; the agent of an early stage may not have met all of them.
    """

    games: tuple[str, ...] = ()
    mode: str = "easy"
    levels: str = "train"
    twist: str | None = None
    evaluation_greedy: bool = True
    sequence: TrainedSequence = TrainedSequence()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Each game with its mode and levels. Raises `UserError` where there are no such ones."""
        if self.sequence.tasks:
            return tuple(parse_task(text, self.mode, self.levels) for text in self.sequence.tasks)
        return tuple(Task(game, self.mode, self.levels) for game in self.games)

    def greedy(self, asked_greedy: bool, asked_sample: bool) -> bool:
        """Whether to take the most likely actions: as asked for, or else as the run's own evaluation does."""
        return asked_greedy or (not asked_sample and self.evaluation_greedy)

    def level_kind(self, game: str, mode: str, level: int) -> str:
        """Whether a level was trained on: "training", "unseen", or "unknown" if the checkpoint does not say."""
        if not self.games:
            return "unknown"
        ranges = [task.level_range for task in self.tasks if (task.game, task.mode) == (game, mode)]
        known = any(levels.count == 0 or level in levels.seeds for levels in ranges)
        return "training" if known else "unseen"


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """As `records.selection.find_checkpoint`, and by its name that of a trained agent.

    Raises:
        UserError: there is nothing of that name or time.
    """
    if selection.AT not in os.fspath(path) and not existing_checkpoint(path).exists():
        shipped = trained_checkpoint(str(path))
        if shipped is not None:
            return shipped
        names = ", ".join(trained_names())
        raise UserError(
            f"{path} does not exist: name the directory of a run, a time in it (RUN{selection.AT}stage1), "
            f"a {SUFFIX} file, or a trained agent ({names})"
        )
    return selection.find_checkpoint(path)


def checkpoints_beside(checkpoint: Path) -> dict[int, Path]:
    """All checkpoints of the run that a checkpoint is of, by steps of training; none if it is of no run."""
    run = RunDirectory(checkpoint.parent.parent)
    files = {checkpoint_step(path): path for path in run.checkpoint_files()}
    return files if checkpoint in files.values() else {}


@dataclass(frozen=True)
class LoadedAgent:
    """An agent, the checkpoint that it comes from, and what it was trained on."""

    agent: Agent
    checkpoint: Path
    training: TrainingInfo


def load_agent(path: str, device: str, problems: list[str]) -> LoadedAgent | None:
    """The agent in a run or a checkpoint; adds to `problems` what is wrong with it, None if it cannot be loaded."""
    try:
        checkpoint = find_checkpoint(path)
        agent = load_to_play(checkpoint, device)
    except UserError as error:
        problems.append(str(error))
        return None
    if broken := [name for name, weight in agent.policy.named_parameters() if not weight.isfinite().all()]:
        problems.append(
            f"{checkpoint} holds weights that are not numbers ({', '.join(broken[:3])}): use an earlier checkpoint"
        )
    problems += agent_problems(agent)
    return LoadedAgent(agent, checkpoint, training_info(agent))


def load_to_play(checkpoint: Path, device: str = "auto") -> Agent:
    """The agent in `checkpoint`, whose encoder computes in what `device` has units for.

    Raises:
        CheckpointError: the file is damaged or foreign.
    """
    agent = agents.load(checkpoint, device=device)
    encoder = agent.policy.encoder
    encoder.precision = for_playing(encoder.precision, agent.device)
    return agent


def agent_problems(agent: Agent) -> list[str]:
    """One line if `agent` is for other observations or actions than those of ProcGen."""
    shape, num_actions = image_and_actions(agent.observation_space, agent.action_space)
    if (shape, num_actions) == (IMAGE_SHAPE, NUM_ACTIONS):
        return []
    size = " x ".join(map(str, shape))
    return [f"this agent does not play ProcGen: it sees {size} images and has {num_actions} actions"]


def training_info(agent: Agent) -> TrainingInfo:
    """What `agent` was trained on. Its experiment may be missing, or come from elsewhere."""
    problems: list[str] = []  # what is something else than expected is left out
    return config.read(TrainingInfo(), agent.experiment, problems)


def task_numbers(agent: Agent, games: Sequence[str], mode: str, levels: str | None = None) -> list[int]:
    """The number of the task that each of `games` belongs to, for a policy that is told; zeros for one that is not.

    Args:
        agent: trained on a sequence.
        games: that are played in `mode`.
        mode: of the games.
        levels: that are played; a task that is trained on them is preferred to others of the same game.

    Raises:
        UserError: the policy must be told, and a game belongs to none of its tasks.
    """
    if not agent.policy.config.tasks.told:
        return [0] * len(games)
    known = list(training_info(agent).tasks)

    def likeness(number: int, game: str) -> tuple[bool, bool, bool]:
        task = known[number]
        return task.game == game, task.mode == mode, task.levels == levels

    found = []
    for game in games:
        best = max(range(len(known)), key=lambda number: likeness(number, game), default=None)
        if best is None or known[best].game != game:
            names = ", ".join(map(str, known)) or "unknown"
            raise UserError(
                f"this policy is told its task, and {game} is none of them: its tasks are {names}"
            )
        found.append(best)
    return found
