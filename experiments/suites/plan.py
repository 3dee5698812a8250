"""From a suite to the runs that it consists of."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from common.cli import Shown
from common.config import Range
from common.config import problems as config_problems
from common.errors import UserError, raise_problems, shown
from common.files import write_json
from envs import expand_games
from envs.checks import MAX_SEED
from experiments.command_line import PROGRAM, override
from experiments.presets import PRESETS
from experiments.suites.definition import Suite, Value, Variant
from records.config import TrainConfig, learned_settings, to_json
from records.directory import RECORD, RUNS, RunDirectory, read_record
from records.sequence import SequenceConfig

CONFIGS = "configs"
"""Directory of a suite with the settings of its runs, a file for each."""
_EPISODE_STEPS = 300
"""A rough mean length of episodes, for how many of them a rehearsal should play."""
_LEAST_EPISODES = 10
_REHEARSED_EPISODES = 3
"""Of each task and split, in the evaluations within stages."""
MAX_RUNS = 10_000
"""Beyond it, a number of runs is a mistake."""
_CHECKPOINTS, _ENTRIES = 5, 50
"""How many checkpoints and entries of progress.csv a rehearsal makes, about."""


@dataclass(frozen=True)
class Options:
    """How a suite is run.

    Attributes:
        scale: factor of all step budgets, for a rehearsal, which goes to a directory of its own.
        seeds: in place of the suite's own.
        games: one run for each, in suites of single-game runs.
        runs: where the directory of the suite goes.
    """

    scale: Annotated[float, Range(0, 1, open_low=True), Shown("FACTOR")] = 1.0
    seeds: Annotated[tuple[int, ...], Shown("N ...", "those of the suite")] = ()
    games: Annotated[tuple[str, ...], Shown("GAME ...", "those of the suite")] = ()
    runs: Annotated[Path, Shown("DIR")] = RUNS


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        group: runs of the same group differ in their seed alone.
        label: what tables and plots call the group.
    """

    name: str
    group: str
    label: str
    config: TrainConfig
    run: RunDirectory

    @property
    def config_file(self) -> Path:
        """Where its settings lie before it is started."""
        return self.run.path.parent / CONFIGS / f"{self.name}.json"

    def write_config(self) -> None:
        """Write the settings that `command` reads."""
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.config_file, to_json(self.config))

    @property
    def command(self) -> tuple[str, ...]:
        """Words after ``python train.py`` that start it."""
        return ("--config", str(self.config_file), "--run-dir", str(self.run))


@dataclass(frozen=True)
class Reevaluation:
    """Runs of the group `of`, evaluated under another reset rule; what comes out is a group too."""

    group: str
    label: str
    of: str
    reset: str


@dataclass(frozen=True)
class Plan:
    """Everything that a suite does.

    Attributes:
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
        before = read_record(self.directory) or {}
        groups = {item["group"]: item for item in before.get("groups", [])}
        groups |= {run.group: {"group": run.group, "label": run.label} for run in self.runs}
        write_json(
            self.directory / RECORD,
            {
                "suite": self.suite.name,
                "summary": self.suite.summary,
                "scale": self.options.scale,
                "full_model": self.suite.full_model,
                "groups": list(groups.values()),
                "reevaluations": [asdict(item) for item in self.reevaluations],
            },
        )


def make_plan(suite: Suite, options: Options = Options(), words: Sequence[str] = ()) -> Plan:
    """The runs of `suite`, each with its checked settings; nothing is created.

    `words` are options of train.py for every run, which override those of the suite.

    Raises:
        UserError: naming everything that is wrong with the options or with the settings of the runs.
    """
    problems = [*config_problems(options, "--"), *_option_problems(suite, options, words)]
    raise_problems(problems)
    directory = options.runs / directory_name(suite, options)
    grid = dict(suite.grid)
    if options.games:
        grid["games"] = expand_games(options.games)
    seeds = options.seeds or suite.seeds
    many = math.prod(len(values) for values in grid.values()) * len(suite.variants) * len(seeds)
    if many > MAX_RUNS:
        raise UserError(f"suite {suite.name} would be {many:,} runs: at most {MAX_RUNS:,} are possible")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    groups, runs, reevaluations = [], [], []
    for point, variant in itertools.product(points, suite.variants):
        if variant.evaluates is not None:
            continue
        group = _group(point, variant) or suite.name
        values = {**suite.settings, **point, **variant.settings, "seed": seeds[0]}
        try:
            config = _config(suite, values, words)
        except UserError as error:
            problems.append(f"run {group}: {error}")
            continue
        if options.scale != 1:
            config = scaled(config, options.scale)
        groups.append((group, _label(point, variant) or suite.name, config))
    raise_problems(problems)
    for seed, (group, label, config) in itertools.product(seeds, groups):
        name = f"{group}-seed{seed}"
        runs.append(
            PlannedRun(name, group, label, replace(config, seed=seed), RunDirectory(directory / name))
        )
    by_name = {variant.name: variant for variant in suite.variants}
    for point, variant in itertools.product(points, suite.variants):
        if variant.evaluates is not None:
            of = _group(point, by_name[variant.evaluates])
            reevaluations.append(
                Reevaluation(_group(point, variant), _label(point, variant), of, str(variant.reset))
            )
    names = [group for group, _, _ in groups] + [item.group for item in reevaluations]
    if suite.full_model is not None and suite.full_model not in names:
        raise UserError(
            f"suite {suite.name}: full_model {suite.full_model!r} is none of its groups: "
            f"{', '.join(dict.fromkeys(names))}"
        )
    if len({run.name for run in runs}) < len(runs):
        raise UserError(f"suite {suite.name}: two runs would have the same name: name its variants apart")
    return Plan(suite, options, directory, tuple(runs), tuple(reevaluations))


def directory_name(suite: Suite, options: Options) -> str:
    """Name of the suite's directory: a rehearsal never goes to that of the real thing."""
    return suite.name if options.scale == 1 else f"{suite.name}-scale-{options.scale:g}"


def _option_problems(suite: Suite, options: Options, words: Sequence[str]) -> list[str]:
    found = []
    if len(set(options.seeds)) < len(options.seeds):
        found.append("--seeds lists a seed twice")
    if bad := [seed for seed in (*suite.seeds, *options.seeds) if not 0 <= seed <= MAX_SEED]:
        found.append(f"seed {shown(bad[0])} must be from 0 to {MAX_SEED}")
    if options.games and "games" not in suite.grid:
        found.append(
            f"suite {suite.name} plays its games together, --games is for suites with one run per game; "
            f"to change what each run plays: -- --games {' '.join(options.games)}"
        )
    reserved = ("--seed", "--config", "--run-dir", "--resume", "--requeue", "--total-steps")
    given = [word for word in words if word.split("=")[0] in reserved]
    if given:
        found.append(f"{' '.join(given)} cannot be given for every run: use --seeds, --runs and --scale")
    return found


def _config(suite: Suite, values: Mapping[str, Value], words: Sequence[str]) -> TrainConfig:
    """The checked settings of a run. Raises `UserError`."""
    preset, problems = PRESETS[suite.preset], []  # type: ignore[var-annotated]
    config = preset.configure(values, preset.config, problems)
    config, _ = override(preset, config, words, f"{PROGRAM} {suite.preset}", problems)
    raise_problems([*problems, *config.problems()])
    return config


def scaled(config: TrainConfig, scale: float) -> TrainConfig:
    """`config` as a rehearsal of a share `scale` of its steps.

    A run is at least two rollouts long; checkpoints and log entries come often enough to see it move; the final
    evaluation plays about as many steps as training does, but at least 10 episodes of each game and split.
    """
    rollout = config.steps_per_rollout
    total = max(round(config.total_steps * scale), 2 * rollout)
    sequence = config.sequence
    if sequence.active:
        sequence = _scaled_sequence(sequence, scale, rollout)
        total = sequence.total_steps(len(config.tasks))
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
        sequence=sequence,
    )


def _scaled_sequence(sequence: SequenceConfig, scale: float, rollout: int) -> SequenceConfig:
    """As many stages and evaluations, of a share `scale` of the steps and episodes; a stage is two rollouts or more."""

    def share(steps: int | None, least: int) -> int | None:
        return None if steps is None else max(round(steps * scale), least)

    return replace(
        sequence,
        steps_per_task=share(sequence.steps_per_task, 2 * rollout),
        first_stage_steps=share(sequence.first_stage_steps, 2 * rollout),
        evaluate_every_steps=share(sequence.evaluate_every_steps, rollout),
        boundary_episodes=min(sequence.boundary_episodes, _LEAST_EPISODES),
        evaluation_episodes=min(sequence.evaluation_episodes, _REHEARSED_EPISODES),
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


def differing_settings(run: RunDirectory, config: TrainConfig) -> list[str]:
    """Names of the settings in which the run that is there differs from the one that is asked for."""
    found, wanted = learned_settings(run.read_config()), learned_settings(config)
    # A run goes on where it was begun, and what `config` leaves open was settled then.
    settled = {"device", *(["env_groups"] if config.env_groups is None else [])}
    return [name for name, value in wanted.items() if name not in settled and found.get(name) != value]


def conflicts(planned: PlannedRun) -> list[str]:
    """One line if the run's directory holds a run with other settings than planned."""
    if not planned.run.config_file.is_file():
        return []
    different = differing_settings(planned.run, planned.config)
    if not different:
        return []
    return [
        f"{planned.run} was made with other {', '.join(different)}: "
        "give another --runs directory, or start the suite as it was started"
    ]
