"""The configuration of a training run, and everything that can be wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch

from agents import ALGORITHMS, AgentConfig, ImpalaConfig
from agents.retention import RetentionConfig, make_retention, retention_problems
from agents.sizes import memory_problems
from common.config import INCIDENTAL, INLINE, Range, assign, choice, chosen_name, flat, options, plain
from common.config import problems as config_problems
from common.errors import UserError, raise_problems, shown
from envs import TASK_SETS, Task, environment_problems, expand_games, parse_levels, parse_task
from envs.checks import sharing_problems
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from policies import PolicyConfig, name_of
from policies.registry import encoder_configs
from policies.tasks import PER_TASK, SHARED
from records.sequence import Plan, SequenceConfig

# Beyond these a number is a typing error.
MAX_STEPS = 10**13
_Count = Annotated[int, Range(1, MAX_STEPS)]
_Minutes = Annotated[float, Range(0, 1_000_000, open_low=True)]
MAX_THREADS = 1024
MAX_GROUPS = 16


def _agent_configs() -> Mapping[str, type]:
    return {name: algorithm.config_class for name, algorithm in ALGORITHMS.items()}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run does.

    Attributes:
        games: games or task sets (easy6, memory4, all16); each game gets the same share of the environments.
        mode: easy, hard, memory, exploration or extreme; not every game has every mode.
        levels: levels to train on: train, test1, test2, test3, all, or A:B for levels A to B-1.
        twist: what makes the past matter: "blank 4 of 8" (of every 8 frames of an episode the last 4 are black), "blank
            after 1" (all but its first), "cue 16" (the first frame has a coloured border, which is asked for every 16
            steps); none for the games as they are. What is trained so is scored and shown so.
        num_envs: environments stepped together, a multiple of the number of games.
        total_steps: environment steps of all environments together, rounded up to whole rollouts.
        seed: of environments, weights and actions.
        start: run (RUN, RUN@best), checkpoint or trained agent whose weights training begins with; none for fresh ones.
        policy: the network.
        agent: learning algorithm.
        retention: method of continual learning, or several, joined by + (none, ewc, xdg+si).
        retain: settings of these methods.
        device: auto, cpu or cuda.
        torch_threads: threads of torch's operators; none for torch's own choice.
        env_threads: native threads that step the games; 0 steps them in the main thread.
        env_groups: groups of environments, of which one steps while the actions of another are chosen; none for 2 with
            a GPU and 1 without (there, choosing actions keeps the processor busy anyway). Each group draws its own
            levels.
        checkpoint_every_steps: environment steps between two checkpoints; none for one at the end only.
        checkpoint_every_minutes: minutes after which one is written even before that; none for no such limit.
        keep_checkpoints: how many of the newest are kept, beside that of the best normalised return in training; none
            for all.
        watchdog_minutes: when nothing has moved for so long, the run is saved and ended; none to wait for ever.
        log_every_steps: environment steps between two entries of progress.csv and TensorBoard.
        evaluation_episodes: episodes of each game and split in the final evaluation; none for no evaluation.
        evaluation_splits: levels that the final evaluation plays.
        evaluation_greedy: whether scores and videos show the most likely actions, or draw them as in training.
        videos: whether to record a video of the agent playing each game at the end.
        video_every: environment steps between two videos in the course of training; none for no such videos.
        sequence: tasks one after another, instead of all games at once.
    """

    games: tuple[str, ...] = TASK_SETS["easy6"]
    mode: str = "easy"
    levels: str = "train"
    twist: str | None = None
    num_envs: int = 66
    total_steps: _Count = 1_000_000
    seed: int = 0
    start: str | None = None
    policy: Annotated[PolicyConfig, INLINE] = field(default_factory=PolicyConfig)
    agent: AgentConfig = choice(_agent_configs, ImpalaConfig, option="algorithm")
    retention: str = "none"
    retain: RetentionConfig = field(default_factory=RetentionConfig)
    device: str = "auto"
    torch_threads: Annotated[int | None, Range(1, MAX_THREADS), INCIDENTAL] = None
    env_threads: Annotated[int, Range(0, MAX_THREADS), INCIDENTAL] = 4
    env_groups: Annotated[int | None, Range(1, MAX_GROUPS)] = None
    checkpoint_every_steps: Annotated[_Count | None, INCIDENTAL] = 1_000_000
    checkpoint_every_minutes: Annotated[_Minutes | None, INCIDENTAL] = 10.0
    keep_checkpoints: Annotated[_Count | None, INCIDENTAL] = 5
    watchdog_minutes: Annotated[_Minutes | None, INCIDENTAL] = 15.0
    log_every_steps: Annotated[_Count, INCIDENTAL] = 10_000
    evaluation_episodes: Annotated[_Count | None, INCIDENTAL] = 100
    evaluation_splits: Annotated[tuple[str, ...], INCIDENTAL] = ("train", "test1")
    evaluation_greedy: Annotated[bool, INCIDENTAL] = True
    videos: Annotated[bool, INCIDENTAL] = True
    video_every: Annotated[_Count | None, INCIDENTAL] = None
    sequence: SequenceConfig = field(default_factory=SequenceConfig)

    @property
    def policy_name(self) -> str:
        """The name of the recurrent core."""
        return name_of(self.policy.core)

    @property
    def encoder_name(self) -> str:
        """The name of the image encoder."""
        name = chosen_name(encoder_configs(), self.policy.encoder)
        assert name is not None
        return name

    @property
    def algorithm_name(self) -> str:
        """The name of the learning algorithm."""
        name = chosen_name(_agent_configs(), self.agent)
        assert name is not None
        return name

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps of all environments together between two phases of learning."""
        return self.num_envs * self.agent.rollout_steps

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a sequence plays, in order. Raises `UserError` where that is not a list of tasks."""
        if not self.sequence.tasks:
            return tuple(Task(game, self.mode, self.levels) for game in self.games)
        return tuple(parse_task(text, self.mode, self.levels) for text in self.sequence.tasks)

    @property
    def plan(self) -> Plan:
        """The stages of a sequence; only where there is one, and without problems."""
        return Plan(self.sequence, self.tasks, self.steps_per_rollout)

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each, found before any environment or network is created."""
        agent = config_problems(self.agent, "agent.")
        found = [
            *config_problems(self),
            *(_sequence_problems(self) if self.sequence.active else _games_problems(self)),
            # An impossible number of environments is reported once, and wrong hyperparameters by themselves.
            *(self.agent.problems(self.num_envs) if self.num_envs >= 1 and not agent else []),
            *_retention_problems(self),
            *device_problems(self.device),
            *_evaluation_problems(self),
        ]
        # How much memory it takes is known only of what is right.
        return found or memory_problems(
            self.policy, self.agent, IMAGE_SHAPE, NUM_ACTIONS, self.num_envs, self.device
        )

    def check(self) -> None:
        """Raise one `UserError` that lists all problems, if there are any."""
        raise_problems(self.problems())


def configure(data: object, start: TrainConfig, problems: list[str]) -> TrainConfig:
    """`start` with the settings in `data`; `problems` gets a line for each that cannot be taken.

    They go by name, as options ("policy", "core.heads", "agent.learning_rate"; dotted or nested) or as `to_json` writes
    them. Another policy or algorithm starts from its own defaults.
    """
    data = _as_named_now(data)
    config = assign(start, data, problems)
    config = replace(config, games=expand_games(config.games))
    given = dict(flat(data)) if isinstance(data, Mapping) else {}
    return _with_sequence(config, given, problems) if config.sequence.active else config


def _with_sequence(config: TrainConfig, given: Mapping[str, object], problems: list[str]) -> TrainConfig:
    """`config` with the games and the number of steps that follow from its sequence, unless they are `given`."""
    try:
        tasks = config.tasks
    except UserError:
        return config  # which `problems` of the configuration names
    games = tuple(dict.fromkeys(task.game for task in tasks))
    if "games" in given and set(config.games) != set(games):
        problems.append(
            f"games are {', '.join(config.games)}, but sequence.tasks play {', '.join(games)}: leave one of them out"
        )
    if "total_steps" not in given and tasks and not config_problems(config.sequence):
        config = replace(config, total_steps=config.sequence.total_steps(len(tasks)))
    if "tasks.count" not in given and "policy.tasks.count" not in given:
        count = 1 if config.sequence.joint else max(1, len(tasks))
        known = replace(config.policy.tasks, count=count)
        config = replace(config, policy=replace(config.policy, tasks=known))
    return replace(config, games=games)


def to_json(config: TrainConfig) -> dict[str, Any]:
    """All settings as plain JSON values; `from_json` reads them back."""
    return dict(plain(config))


def from_json(data: object) -> TrainConfig:
    """The configuration that `to_json` wrote; settings left out take their defaults.

    Raises:
        UserError: naming all unknown settings and values of a wrong type.
    """
    problems: list[str] = []
    config = configure(data, TrainConfig(), problems)
    raise_problems(problems)
    return config


def _as_named_now(data: object) -> object:
    """`data`, with settings of runs of older versions under the names that they have now."""
    if not isinstance(data, Mapping):
        return data
    now = dict(data)
    if "blank" in now:
        blank = now.pop("blank")
        now["twist"] = blank if blank is None else f"blank {blank}"
    sequence = now.get("sequence")
    if isinstance(sequence, Mapping) and "start" in sequence:
        now["sequence"] = {name: value for name, value in sequence.items() if name != "start"}
        now.setdefault("start", sequence["start"])
    return now


def learned_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what is learned, as plain values by the names of options.

    Which of several GPUs it is does not matter. That it is one does, since it rounds otherwise than a CPU; and so do
    the groups of environments, since each draws its own levels.
    """
    found = {
        option.name: plain(option.value)
        for option in options(config)
        if INCIDENTAL not in option.type.constraints
    }
    return {**found, "device": config.device.partition(":")[0]}


def _games_problems(config: TrainConfig) -> list[str]:
    return environment_problems(
        config.games, config.num_envs, config.mode, config.levels, config.seed, twist=config.twist
    )


def _sequence_problems(config: TrainConfig) -> list[str]:
    """What is wrong with the tasks of a sequence and with the steps of its stages."""
    sequence = config.sequence
    try:
        tasks = config.tasks
    except UserError as error:
        return [f"sequence.tasks: {error}"]
    found = [] if tasks else _games_problems(config)
    for task in tasks:
        found += environment_problems([task.game], config.num_envs, task.mode, task.levels, config.seed)
        if tasks.count(task) > 1:
            found.append(
                f"sequence.tasks lists {task} more than once: give sequence.cycles for another visit"
            )
    if config.twist is not None:
        found.append("twist is for games that are played at once, not for a sequence: leave it out")
    known = config.policy.tasks
    if sequence.joint and (known.told or known.heads != SHARED):
        found.append("sequence.joint plays all tasks at once: leave tasks.id and tasks.heads out")
    if tasks and known.count < len(tasks) and (known.told or known.heads != SHARED) and not sequence.joint:
        found.append(f"tasks.count is {known.count}, but the sequence has {len(tasks)} tasks: leave it out")
    if sequence.carry_state and known.cores == PER_TASK:
        found.append(
            "sequence.carry_state hands a core's memory on, but with tasks.cores per-task the next task has another "
            "core: leave one out"
        )
    if sequence.joint:
        found += sharing_problems(config.num_envs, len(tasks), "tasks")
    return list(dict.fromkeys(found)) + (_stage_problems(config, len(tasks)) if tasks else [])


def _retention_problems(config: TrainConfig) -> list[str]:
    """Why the methods of continual learning cannot be used with this network, this algorithm and these tasks."""
    found = retention_problems(config.retention)
    if found or config_problems(config.retain) or config_problems(config.policy):
        return found
    method = make_retention(config.retention, config.retain)
    found += method.problems(config.policy, config.agent)
    if method.needs_boundaries and (config.sequence.joint or not config.sequence.active):
        found.append(
            f"retention {config.retention} acts where the task changes, which it never does here: give "
            "sequence.steps_per_task, or retain.every to let it act every so many steps"
        )
    return found


def _stage_problems(config: TrainConfig, num_tasks: int) -> list[str]:
    if config_problems(config.sequence) or config.num_envs < 1 or config_problems(config.agent):
        return []
    sequence, found = config.sequence, []
    total, stages = sequence.total_steps(num_tasks), sequence.cycles * num_tasks
    if config.total_steps != total:
        found.append(
            f"total_steps is {config.total_steps:,}, but the sequence's {stages} stages have {total:,} steps: "
            "leave it out"
        )
    shortest = min(sequence.steps_per_task or 0, sequence.first_stage_steps or math.inf)
    if shortest < config.steps_per_rollout:
        found.append(
            f"a stage of {shortest:,} steps is shorter than a rollout of {config.steps_per_rollout:,} "
            f"({config.num_envs} environments, {config.agent.rollout_steps} steps): give longer stages"
        )
    return found


def device_problems(name: str) -> list[str]:
    """One line if torch has no device called `name`, or it is of a kind that is not supported."""
    if name == "auto":
        return []
    try:
        device = torch.device(name)
    except RuntimeError:
        return [f"unknown device {shown(name)}: use auto, cpu or cuda"]
    if device.type == "cpu":
        return []
    if device.type != "cuda":
        return [f"device {shown(name)} is not supported: use auto, cpu or cuda"]
    if not torch.cuda.is_available():
        return [f"device {shown(name)} is not available, torch finds no GPU: use auto or cpu"]
    if (device.index or 0) >= torch.cuda.device_count():
        return [f"device {shown(name)} does not exist: the last one is cuda:{torch.cuda.device_count() - 1}"]
    return []


def _evaluation_problems(config: TrainConfig) -> list[str]:
    found = []
    if config.evaluation_episodes is not None and not config.evaluation_splits:
        found.append(
            "no evaluation_splits: name at least one (train, test1, ...), or evaluation_episodes none"
        )
    for split in dict.fromkeys(config.evaluation_splits):
        try:
            parse_levels(split, config.mode)
        except UserError as error:
            found.append(f"evaluation_splits: {error}")
        if config.evaluation_splits.count(split) > 1:
            found.append(f"evaluation_splits lists {split} more than once: list it once")
    return found
