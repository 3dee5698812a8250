"""Tasks one after another: the settings of a sequence, and where its stages begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated

from common.config import INCIDENTAL, Range
from common.errors import UserError
from envs import Task, parse_levels

_Steps = Annotated[int, Range(1, 10**13)]
TRAINED_LEVELS = "train"
"""The split that stands for the levels that a task itself is trained on."""
DIP_PERCENT = 2
"""The part of a stage after a switch in which the dip is looked for; evaluations in between begin within it."""


@dataclass(frozen=True)
class SequenceConfig:
    """Tasks one after another, instead of all games at once.

    Attributes:
        steps_per_task: environment steps of a stage, which is one visit to one task; none for no sequence.
        tasks: in their order, each GAME, GAME/MODE or GAME/MODE/LEVELS such as climber/easy/3:4; empty for the games.
        cycles: how many times the tasks are gone through.
        first_stage_steps: environment steps of the very first stage, where it is to be shorter, as with a start that
            plays already; none for those of the others.
        joint: train on all tasks at once, for as many steps: what remembering can be held against.
        restart_learning_rate: whether a learning rate that decays does so within each stage, instead of over the run.
        reset_optimizer: whether the optimizer forgets at each switch.
        fresh_core: whether core and heads begin with new weights at each switch, so that nothing but what the method
            has kept can bring earlier tasks back; the encoder stays.
        carry_state: whether the core's memory is carried over a switch.
        evaluate_every_steps: environment steps between two evaluations of all tasks within a stage, of which two more
            follow each switch closely; none for evaluations at the ends of stages alone.
        evaluation_episodes: of each task and split in those within a stage.
        boundary_episodes: of each task and split before the first stage and after each.
        evaluation_splits: levels of the tasks that are played; train stands for those that the task is trained on.
        evaluation_greedy: whether these evaluations take the most likely actions, as CORA's do, or draw them.
        recovery_episodes: episodes in a row of each task at each boundary, to see what comes back without gradient;
            none for none.
    """

    steps_per_task: _Steps | None = None
    tasks: tuple[str, ...] = ()
    cycles: Annotated[int, Range(1, 10_000)] = 1
    first_stage_steps: _Steps | None = None
    joint: bool = False
    restart_learning_rate: bool = True
    reset_optimizer: bool = False
    fresh_core: bool = False
    carry_state: bool = False
    evaluate_every_steps: Annotated[_Steps | None, INCIDENTAL] = None
    evaluation_episodes: Annotated[int, Range(1), INCIDENTAL] = 10
    boundary_episodes: Annotated[int, Range(1), INCIDENTAL] = 100
    evaluation_splits: Annotated[tuple[str, ...], INCIDENTAL] = (TRAINED_LEVELS, "test1")
    evaluation_greedy: Annotated[bool, INCIDENTAL] = False
    recovery_episodes: Annotated[int | None, Range(1, 1000), INCIDENTAL] = None

    @property
    def active(self) -> bool:
        """Whether there is a sequence."""
        return self.steps_per_task is not None

    def contradictions(self) -> list[str]:
        """What does not fit together, a line each."""
        if not self.active:
            default = SequenceConfig()
            given = [
                item.name for item in fields(self) if getattr(self, item.name) != getattr(default, item.name)
            ]
            return [
                f"sequence.{name} is given, but there is no sequence: give sequence.steps_per_task"
                for name in given
            ]
        return self._split_problems()

    def _split_problems(self) -> list[str]:
        found = []
        if not self.evaluation_splits:
            found.append("no sequence.evaluation_splits: name at least one (train, test1, ...)")
        for split in dict.fromkeys(self.evaluation_splits):
            try:
                parse_levels(split)
            except UserError as error:
                found.append(f"sequence.evaluation_splits: {error}")
            if self.evaluation_splits.count(split) > 1:
                found.append(f"sequence.evaluation_splits lists {split} more than once: list it once")
        return found

    def total_steps(self, num_tasks: int) -> int:
        """Environment steps of all stages together."""
        return _ends(self, num_tasks)[-1]


def _ends(config: SequenceConfig, num_tasks: int) -> list[int]:
    steps = config.steps_per_task
    assert steps is not None
    first = steps if config.first_stage_steps is None else config.first_stage_steps
    return [first + number * steps for number in range(config.cycles * num_tasks)]


@dataclass(frozen=True)
class Stage:
    """One visit to one task.

    Attributes:
        number: counted from 1.
        cycle: counted from 1.
        task: what is played.
        task_index: its place among the tasks, from 0.
        begin: environment steps before it.
        end: environment steps at its end: the first rollout that ends there or later is its last one.
    """

    number: int
    cycle: int
    task: Task
    task_index: int
    begin: int
    end: int

    @property
    def steps(self) -> int:
        """Environment steps that it is meant to have."""
        return self.end - self.begin

    def part(self, percent: int) -> int:
        """So much of its steps, rounded up."""
        return -(-self.steps * percent // 100)


@dataclass(frozen=True)
class Plan:
    """The stages of a sequence.

    Attributes:
        config: the settings.
        tasks: what is played, in order.
        steps_per_rollout: environment steps of all environments between two phases of learning.
    """

    config: SequenceConfig
    tasks: tuple[Task, ...]
    steps_per_rollout: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of them, in order."""
        ends, count = _ends(self.config, len(self.tasks)), len(self.tasks)
        return tuple(
            Stage(place + 1, place // count + 1, self.tasks[place % count], place % count, begin, end)
            for place, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
        )

    def at_rollout_end(self, step: int) -> int:
        """The environment step of the first end of a rollout at or after `step`."""
        return -(-step // self.steps_per_rollout) * self.steps_per_rollout

    def stage_at(self, step: int) -> Stage:
        """The stage whose environments are played at `step`; at the end of one, still that one."""
        stages = self.stages
        return next((stage for stage in stages if step <= self.at_rollout_end(stage.end)), stages[-1])

    def boundaries(self) -> dict[int, int]:
        """Numbers of stages by the environment step at which they end."""
        return {self.at_rollout_end(stage.end): stage.number for stage in self.stages}

    def evaluates_at(self, step: int) -> bool:
        """Whether all tasks are evaluated at `step`, which lies between two rollouts within a stage."""
        if step == 0 or step in self.boundaries():
            return False
        stage = self.stage_at(step)
        return any(step - self.steps_per_rollout < point <= step for point in self._points(stage, step))

    def _points(self, stage: Stage, up_to: int) -> Iterator[int]:
        """Where a stage asks for evaluations, up to a step: two soon after its beginning, and then regularly."""
        every = self.config.evaluate_every_steps
        if every is None:
            return
        begin = self.at_rollout_end(stage.begin)
        yield from (begin + stage.part(percent) for percent in (DIP_PERCENT // 2, DIP_PERCENT))
        yield begin + (up_to - begin) // every * every
