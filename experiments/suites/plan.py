"""From a suite to the runs that it consists of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import UserError, raise_problems
from envs import expand_games
from experiments import command_line
from experiments.command_line import Launch
from experiments.suites.definition import PROGRAMS, Suite, Value, Variant
from records.config import TrainConfig, setting_names, to_json
from records.directory import RUNS, RunDirectory, write_json
from records.suite_record import RECORD, read_record

INCIDENTAL = (
    *("device", "torch_threads", "env_threads", "env_groups"),
    *("checkpoint_every_minutes", "keep_checkpoints", "watchdog_minutes", "video_every"),
)
"""Settings that may be others where a run is continued: they do not decide what is learned."""
_EPISODE_STEPS = 300
"""A rough mean length of episodes, for how many of them a rehearsal should play."""
_LEAST_EPISODES = 10
_CHECKPOINTS, _ENTRIES = 5, 50
"""How many checkpoints and entries of progress.csv a rehearsal makes, about."""


@dataclass(frozen=True)
class Options:
    """How a suite is run.

    Attributes:
        scale: factor of all step budgets; a run is never shorter than two rollouts.
        seeds: in place of the suite's own.
        games: in place of the values of its grid for games.
        words: options of train.py for every run, which override those of the suite.
        runs: directory that holds the directory of the suite.
    """

    scale: float = 1.0
    seeds: tuple[int, ...] = ()
    games: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    runs: Path = RUNS


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        name: of its directory.
        group: runs of the same group differ in their seed alone.
        label: of the group, in tables and plots.
        program: what trains it.
        words: of the command that starts it, without the program and without --run-dir.
        config: its settings.
        directory: where it goes.
    """

    name: str
    group: str
    label: str
    program: str
    words: tuple[str, ...]
    config: TrainConfig
    directory: Path

    @property
    def run(self) -> RunDirectory:
        """Its files."""
        return RunDirectory(self.directory)

    @property
    def command(self) -> tuple[str, ...]:
        """Words after ``python train.py`` that start it."""
        return (*PROGRAMS[self.program], *self.words, "--run-dir", str(self.directory))

    @property
    def continuation(self) -> tuple[str, ...]:
        """Words after ``python train.py`` that continue it."""
        return (*PROGRAMS[self.program], "--resume", str(self.directory))


@dataclass(frozen=True)
class Reevaluation:
    """Runs of one group, evaluated under another reset rule.

    Attributes:
        group: its own name.
        label: in tables.
        of: the group whose runs it evaluates.
        reset: the reset rule.
    """

    group: str
    label: str
    of: str
    reset: str


@dataclass(frozen=True)
class Plan:
    """Everything that a suite does.

    Attributes:
        suite: what it follows.
        options: how.
        directory: of the suite; the runs are directories in it.
        runs: group by group of the first seed, then of the second, so that an early stop leaves whole comparisons.
        reevaluations: what the report evaluates besides the runs.
    """

    suite: Suite
    options: Options
    directory: Path
    runs: tuple[PlannedRun, ...]
    reevaluations: tuple[Reevaluation, ...]

    def write_record(self) -> None:
        """Write down what the runs are, beside them.

        Groups made before with other options (other games) stay listed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / RECORD
        before = read_record(self.directory)
        groups = {item["group"]: item for item in (before or {}).get("groups", [])}
        groups |= {run.group: {"group": run.group, "label": run.label} for run in self.runs}
        write_json(
            path,
            {
                "suite": self.suite.name,
                "summary": self.suite.summary,
                "scale": self.options.scale,
                "full_model": self.suite.full_model,
                "groups": list(groups.values()),
                "reevaluations": [asdict(item) for item in self.reevaluations],
            },
        )


def make_plan(suite: Suite, options: Options = Options()) -> Plan:
    """The runs of `suite`, each with its checked settings; nothing is created.

    Raises:
        UserError: naming everything that is wrong with the options or with the settings of the runs.
    """
    problems = _option_problems(suite, options)
    raise_problems(problems)
    directory = options.runs / directory_name(suite, options)
    seeds = options.seeds or suite.seeds
    grid = dict(suite.grid)
    if options.games:
        grid["games"] = expand_games(options.games)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    runs = []
    for seed in seeds:
        for point in points:
            for variant in suite.variants:
                if variant.evaluates is not None:
                    continue
                try:
                    runs.append(_planned(suite, options, directory, seed, point, variant))
                except UserError as error:
                    problems.append(f"run {_group(point, variant) or suite.name}: {error}")
    raise_problems(problems)
    reevaluations = [
        Reevaluation(
            _group(point, variant), _label(point, variant), _group(point, target), str(variant.reset)
        )
        for point in points
        for variant in suite.variants
        for target in suite.variants
        if variant.evaluates is not None and target.name == variant.evaluates
    ]
    groups = [run.group for run in runs] + [item.group for item in reevaluations]
    if suite.full_model is not None and suite.full_model not in groups:
        raise UserError(
            f"suite {suite.name}: full_model {suite.full_model!r} is none of its groups: "
            f"{', '.join(dict.fromkeys(groups))}"
        )
    if len({run.name for run in runs}) < len(runs):
        raise UserError(f"suite {suite.name}: two runs would have the same name: name its variants apart")
    return Plan(suite, options, directory, tuple(runs), tuple(reevaluations))


def directory_name(suite: Suite, options: Options) -> str:
    """Name of the suite's directory: a rehearsal never goes to that of the real thing."""
    return suite.name if options.scale == 1 else f"{suite.name}-scale-{options.scale:g}"


def _option_problems(suite: Suite, options: Options) -> list[str]:
    found = []
    if not 0 < options.scale <= 1:
        found.append(f"--scale is {options.scale}: give a number above 0, at most 1")
    if len(set(options.seeds)) < len(options.seeds):
        found.append("--seeds lists a seed twice")
    if options.games and "games" not in suite.grid:
        found.append(
            f"suite {suite.name} plays its games together, --games is for suites with one run per game; "
            f"to change what each run plays: -- --games {' '.join(options.games)}"
        )
    reserved = [
        word
        for word in options.words
        if word.split("=")[0] in ("--seed", "--run-dir", "--resume", "--total-steps")
    ]
    if reserved:
        found.append(f"{' '.join(reserved)} cannot be given for every run: use --seeds, --runs and --scale")
    return found


def _planned(
    suite: Suite,
    options: Options,
    directory: Path,
    seed: int,
    point: Mapping[str, Value],
    variant: Variant,
) -> PlannedRun:
    settings = {**suite.settings, **point, **variant.settings, "seed": seed}
    words = [suite.preset, *words_of(settings), *options.words]
    config = _config(words)
    if options.scale != 1:
        smaller = scaled(config, options.scale)
        words += words_of(_differences(config, smaller))
        config = _config(words)
    group = _group(point, variant) or suite.name
    name = f"{group}-seed{seed}"
    return PlannedRun(
        name,
        group,
        _label(point, variant) or suite.name,
        variant.program,
        tuple(words),
        config,
        directory / name,
    )


def _config(words: Sequence[str]) -> TrainConfig:
    launch = command_line.parse(words)
    assert isinstance(launch, Launch)
    return launch.config


def words_of(settings: Mapping[str, Value]) -> list[str]:
    """Settings as options of train.py.

    >>> words_of({"policy": "srwm", "agent.learning_rate": 1e-4, "videos": False, "games": ("maze", "heist")})
    ['--policy', 'srwm', '--agent.learning-rate', '0.0001', '--no-videos', '--games', 'maze', 'heist']
    """
    words = []
    for name, value in settings.items():
        owner, dot, last = name.rpartition(".")
        last = last.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{owner}{dot}{'' if value else 'no-'}{last}")
        else:
            items = value if isinstance(value, tuple) else (value,)
            words += [f"--{owner}{dot}{last}", *map(str, items)]
    return words


def scaled(config: TrainConfig, scale: float) -> TrainConfig:
    """`config` as a rehearsal of a share `scale` of its steps.

    A run is at least two rollouts long; checkpoints and log entries come often enough to see it move; the final
    evaluation plays about as many steps as training does, but at least 10 episodes of each game and split.
    """
    rollout = config.rollout_steps
    total = max(round(config.total_steps * scale), 2 * rollout)
    every = config.checkpoint_every_steps
    episodes = config.evaluation_episodes
    if episodes is not None:
        plays = max(1, len(config.games) * len(config.evaluation_splits))
        episodes = min(episodes, max(_LEAST_EPISODES, total // (_EPISODE_STEPS * plays)))
    return replace(
        config,
        total_steps=total,
        checkpoint_every_steps=None if every is None else min(every, max(total // _CHECKPOINTS, rollout)),
        log_every_steps=min(config.log_every_steps, max(total // _ENTRIES, rollout)),
        evaluation_episodes=episodes,
    )


def _differences(before: TrainConfig, after: TrainConfig) -> dict[str, Any]:
    old, new = to_json(before), to_json(after)
    return {
        name: new[name]
        for name in setting_names(after)
        if name in new and new[name] != old[name] and new[name] is not None
    }


def _group(point: Mapping[str, Value], variant: Variant) -> str:
    return "-".join([*(_slug(name, value) for name, value in point.items()), *filter(None, [variant.name])])


def _label(point: Mapping[str, Value], variant: Variant) -> str:
    return ", ".join([*(_text(name, value) for name, value in point.items()), *filter(None, [variant.label])])


def _slug(name: str, value: Value) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", _text(name, value).replace(" ", "-")).strip("-")


def _text(name: str, value: Value) -> str:
    """A value of the grid; the names of policies and games speak for themselves."""
    items = value if isinstance(value, tuple) else (value,)
    text = "+".join(map(str, items))
    return text if name in ("policy", "games", "algorithm") else f"{name.rpartition('.')[2]} {text}"


def conflicts(planned: PlannedRun) -> list[str]:
    """One line if the run's directory holds a run with other settings than planned."""
    if not planned.run.config_file.is_file():
        return []
    found, wanted = to_json(planned.run.read_config()), to_json(planned.config)
    different = [name for name in wanted if name not in INCIDENTAL and found.get(name) != wanted[name]]
    if not different:
        return []
    return [
        f"{planned.directory} was made with other {', '.join(different)}: "
        "give another --runs directory, or start the suite as it was started"
    ]
