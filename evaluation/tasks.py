"""Scores of one agent on several tasks, as a sequence asks for them between its stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agents import Agent
from envs import Task
from evaluation.progress import Report, no_report
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import GameScore
from records.continual import Place
from records.sequence import TRAINED_LEVELS

SEED = 0
"""Of levels and actions: the same at every evaluation of every run, so that differences are paired."""


@dataclass(frozen=True)
class Group:
    """Tasks that are played side by side on one split: different games in one mode on the same levels.

    Attributes:
        tasks: by their numbers.
        split: as it was asked for.
        levels: that are played.
    """

    tasks: tuple[tuple[int, Task], ...]
    split: str
    levels: str

    @property
    def places(self) -> set[Place]:
        """Of its measurements."""
        return {(str(task), self.split, "", 0) for _, task in self.tasks}


def groups(tasks: Sequence[Task], splits: Sequence[str]) -> Iterator[Group]:
    """`tasks` on `splits` in groups as large as can be, in a fixed order; the split "train" is each task's own."""
    for split in splits:
        parts: dict[tuple[str, str, int], list[tuple[int, Task]]] = {}
        for number, task in enumerate(tasks):
            levels = task.levels if split == TRAINED_LEVELS else split
            layer = 0
            while any(other.game == task.game for _, other in parts.get((task.mode, levels, layer), [])):
                layer += 1
            parts.setdefault((task.mode, levels, layer), []).append((number, task))
        for (_, levels, _), members in parts.items():
            yield Group(tuple(members), split, levels)


def score(
    agent: Agent,
    group: Group,
    episodes: int,
    greedy: bool,
    report: Report = no_report,
    *,
    num_threads: int = 4,
) -> tuple[GameScore, ...]:
    """What `agent` scores on each task of `group`, in environments and with randomness of its own.

    The agent is left as it was; the same weights get the same scores again.
    """
    protocol = Protocol(
        games=tuple(task.game for _, task in group.tasks),
        mode=group.tasks[0][1].mode,
        splits=(group.levels,),
        episodes=episodes,
        greedy=greedy,
        seed=SEED,
    )
    numbers = [number for number, _ in group.tasks]
    return evaluate(agent, protocol, report, num_threads=num_threads, tasks=numbers).scores
