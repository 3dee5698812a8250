"""From a suite to the runs that it consists of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.errors import UserError, raise_problems
from common.files import write_json
from envs import expand_games
from experiments.command_line import PROGRAM, override
from experiments.presets import PRESETS
from experiments.suites.definition import Suite, Value, Variant
from records import validation
from records.config import TrainConfig, learned_settings, to_json
from records.directory import RECORD, RUNS, RunDirectory, read_record

CONFIGS = "configs"
"""Directory of a suite with the settings of its runs, a file for each."""
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
        name: Name of its directory.
        group: Runs of the same group differ in their seed alone.
        label: What tables and plots call the group.
        config: Its settings.
        directory: Where it goes.
    """

    name: str
    group: str
    label: str
    config: TrainConfig
    directory: Path

    @property
    def run(self) -> RunDirectory:
        """Its files."""
        return RunDirectory(self.directory)

    @property
    def config_file(self) -> Path:
        """Where its settings lie before it is started."""
        return self.directory.parent / CONFIGS / f"{self.name}.json"

    def write_config(self) -> None:
        """Write the settings that `command` reads."""
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.config_file, to_json(self.config))

    @property
    def command(self) -> tuple[str, ...]:
        """Words after ``python train.py`` that start it."""
        return ("--config", str(self.config_file), "--run-dir", str(self.directory))

    @property
    def continuation(self) -> tuple[str, ...]:
        """Words after ``python train.py`` that continue it."""
        return ("--resume", str(self.directory))


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
        if word.split("=")[0] in ("--seed", "--config", "--run-dir", "--resume", "--total-steps")
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
    values = {**suite.settings, **point, **variant.settings, "seed": seed}
    preset, problems = PRESETS[suite.preset], []  # type: ignore[var-annotated]
    config = preset.configure(values, preset.config, problems)
    config, _ = override(preset, config, options.words, f"{PROGRAM} {suite.preset}", problems)
    raise_problems([*problems, *validation.problems(config)])
    group = _group(point, variant) or suite.name
    return PlannedRun(
        name := f"{group}-seed{seed}",
        group,
        _label(point, variant) or suite.name,
        config if options.scale == 1 else scaled(config, options.scale),
        directory / name,
    )


def scaled(config: TrainConfig, scale: float) -> TrainConfig:
    """`config` as a rehearsal of a share `scale` of its steps.

    A run is at least two rollouts long; checkpoints and log entries come often enough to see it move; the final
    evaluation plays about as many steps as training does, but at least 10 episodes of each game and split.
    """
    rollout = config.steps_per_rollout
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
    found, planned_settings = learned_settings(planned.run.read_config()), learned_settings(planned.config)
    # A run goes on where it was begun, and what the plan leaves open was settled then.
    settled = {"device", *(["env_groups"] if planned.config.env_groups is None else [])}
    different = [
        name for name, value in planned_settings.items() if name not in settled and found.get(name) != value
    ]
    if not different:
        return []
    return [
        f"{planned.directory} was made with other {', '.join(different)}: "
        "give another --runs directory, or start the suite as it was started"
    ]
