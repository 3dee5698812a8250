"""From the words of a command line to a checked configuration, or to everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from agents import ALGORITHMS
from agents.checkpoint import SUFFIX
from agents.config import Positive
from agents.numerics import ON_NAN
from common.cli import Flag, Shown, parse_known, unknown_options
from common.config import OneOf, Range, assign, options
from common.config import problems as config_problems
from common.errors import UserError, raise_problems, shown, unknown_name
from common.files import read_data
from experiments.presets import PRESETS, Preset
from experiments.several import processes_problems
from experiments.start import settings_of
from policies import CORES
from records.config import MAX_STEPS, TrainConfig
from records.directory import RunDirectory, existing_problems
from records.launches import is_restart
from records.selection import AT

PROGRAM = "python train.py"


@dataclass(frozen=True)
class Launch:
    """A new run, started from the preset or the file `name`; it goes to a new directory below runs/ unless told."""

    name: str
    config: TrainConfig
    run_dir: str | None
    requeue: bool = False
    processes: str = "1"


@dataclass(frozen=True)
class Resume:
    """Continue a run from its newest checkpoint with its stored settings.

    Attributes:
        resume: directory of the run.
        total_steps: environment steps at which it shall now end.
        learning_rate: from now on; one that decays is what it would have been at the start.
        on_nan: what to do from now on when numbers are not finite.
        processes: that share the run, as for a new one.
    """

    resume: Annotated[str, Shown("RUN_DIR", "")] = ""
    total_steps: Annotated[int | None, Range(1, MAX_STEPS), Shown("N", "as stored")] = None
    learning_rate: Annotated[float | None, Positive, Shown("X", "as stored")] = None
    on_nan: Annotated[str | None, OneOf(ON_NAN), Shown("|".join(ON_NAN), "as stored")] = None
    processes: Annotated[str, Shown("N|auto", "1")] = "1"


@dataclass(frozen=True)
class _Files:
    """Options of a new run that are no settings of it.

    Attributes:
        config: TOML or JSON file with settings, like config.json of a run or with the names below; options override it.
        run_dir: where the run goes; it must not exist yet.
        requeue: for jobs on clusters: go on with the run in --run-dir if it is there, and put the job back into the
            queue when a signal says that its time is up.
        processes: that share the run on this machine, each with its GPU or its part of the cores; auto for one for each
            GPU, or two on a processor. Over several machines, or to restart what fails: torchrun.
    """

    config: Annotated[str | None, Shown("FILE", "none")] = None
    run_dir: Annotated[str | None, Shown("DIR", "a new directory below runs/")] = None
    requeue: Flag = False
    processes: Annotated[str, Shown("N|auto", "1")] = "1"


def overview() -> str:
    """What `train.py` can be asked, without options."""
    width = max(map(len, PRESETS))
    lines = [
        "Train an agent on ProcGen games.",
        "",
        f"  {PROGRAM} PRESET [OPTIONS]                 start a run",
        f"  {PROGRAM} PRESET --help                    show every option and its value in that preset",
        f"  {PROGRAM} [PRESET] --config FILE [OPTIONS] start a run with the settings in a file",
        f"  {PROGRAM} --start AGENT [OPTIONS]          train an agent on, with its settings, in a run of its own",
        f"  {PROGRAM} --resume RUN_DIR                 continue a run; --total-steps N extends it",
        f"  {PROGRAM} suite                            sets of runs",
        f"  {PROGRAM} memory                           cores on small tasks that nobody solves without memory",
        f"  {PROGRAM} PRESET --processes auto          the same in several processes: all GPUs, or 2 on a processor",
        "  torchrun ... train.py ...                       the same on several machines, or restarted when one fails",
        "",
        "Presets:",
        *(f"  {name:{width}}  {preset.summary}" for name, preset in PRESETS.items()),
        "",
        f"Policies (--policy):       {', '.join(CORES)}",
        f"Algorithms (--algorithm):  {', '.join(ALGORITHMS)}",
        "",
        "For example:",
        f"  {PROGRAM} quick --policy deltanet --games maze heist --num-envs 64 --agent.learning-rate 3e-4",
    ]
    return "\n".join(lines)


def parse(words: Sequence[str]) -> Launch | Resume | None:
    """The command that `words` (without the program's name) give, or None after showing the overview.

    Raises:
        UserError: everything that is wrong with it, in one line.
        SystemExit: after showing the options of a preset, code 0.
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return None
    if any(word.split("=")[0] == "--resume" for word in words):
        return _parse_resume(words)
    return _parse_launch(words)


def _parse_launch(words: Sequence[str]) -> Launch:
    problems: list[str] = []
    name, rest = ("", words) if words[0].startswith("-") else (words[0], words[1:])
    if name and name not in PRESETS:
        problems.append(unknown_name("preset", name, PRESETS))
    preset = PRESETS.get(
        name, Preset("Start a run with the settings in a file, or of an agent.", TrainConfig())
    )
    first = _first_look(rest, ["config", "start"])
    config, file, start = preset.config, first.get("config"), first.get("start")
    if not name and file is None:
        if start is None:
            raise UserError(f"name a preset before the options: {', '.join(PRESETS)}; see {PROGRAM} --help")
        config = settings_of(start)
    if file is not None:
        config = preset.configure(read_data(Path(file)), config, problems)
    config, files = override(preset, config, rest, " ".join([PROGRAM, *filter(None, [name])]), problems)
    problems += config.problems()
    files = replace(files, run_dir=_expanded(files.run_dir))
    if files.requeue and files.run_dir is None:
        problems.append("--requeue needs --run-dir: the same command must find its run again")
    if files.requeue and files.processes != "1":
        problems.append("--requeue is for one process: leave --processes out, or use torchrun")
    problems += processes_problems(files.processes)
    if files.run_dir is not None and not (
        is_restart() or (files.requeue and RunDirectory(files.run_dir).config_file.is_file())
    ):
        problems += existing_problems(files.run_dir)
    raise_problems(problems)
    name = name or (_name_of(str(start)) if file is None else Path(file).stem)
    return Launch(name, config, files.run_dir, files.requeue, files.processes)


def _name_of(start: str) -> str:
    """What a run is called after the agent that it begins with, without what would look like a time in the new run."""
    return Path(start).name.removesuffix(SUFFIX).replace(AT, "-")


def _expanded(path: str | None) -> str | None:
    """A shell leaves the ``~`` of ``--run-dir=~/runs`` as it is."""
    return None if path is None else os.path.expanduser(path)  # noqa: PTH111  (Path raises for unknown users)


def override(
    preset: Preset, config: TrainConfig, words: Sequence[str], program: str, problems: list[str]
) -> tuple[TrainConfig, _Files]:
    """`config` with the options that `words` give, and the options that are no settings.

    `program` is how help is asked for; `problems` gets a line for everything that is wrong with `words`.
    """
    # The policy, the encoder and the algorithm decide which options there are.
    chosen = _first_look(words, [option.name for option in options(config) if option.choices])
    config = preset.configure(chosen, config, problems)
    known = list(options(config))
    choosers = {option.name: option for option in known if option.choices}
    titles = {
        option.path[-2]: f"{option.path[-2]} (of {name} {option.value})" for name, option in choosers.items()
    }
    known = [*options(_Files()), *known]
    values, rest = parse_known(words, program, preset.summary, known, titles={**titles, "": "options"})
    # What belongs to an unknown policy or algorithm cannot be judged.
    unjudged = tuple(
        f"{option.path[-2]}."
        for name, option in choosers.items()
        if chosen.get(name, option.value) != option.value
    )
    if rest and not rest[0].startswith("-"):
        problems.append(
            f"unexpected word {shown(rest[0])}: values follow an option, such as --games maze heist"
        )
    rest = [word for word in rest if not word.lstrip("-").startswith(unjudged)]
    with_choice = " and ".join(f"{name} {option.value}" for name, option in choosers.items())
    problems += unknown_options(rest, known, f"all options with {with_choice}: {program} --help")
    files = assign(_Files(), {name: values.pop(name) for name in vars(_Files()) if name in values}, problems)
    return preset.configure(values, config, problems), files


def _first_look(words: Sequence[str], names: Sequence[str]) -> Mapping[str, Any]:
    """The values of the options `names`, before it is known which others there are."""
    known = [option for option in [*options(_Files()), *options(TrainConfig())] if option.name in names]
    return parse_known(words, PROGRAM, "", known, add_help=False)[0]


def _parse_resume(words: Sequence[str]) -> Resume:
    problems: list[str] = []
    known = list(options(Resume()))
    values, rest = parse_known(words, PROGRAM, str(Resume.__doc__).partition("\n")[0], known)
    if rest:
        problems.append(
            "--resume continues a run with its stored settings: only --total-steps, --on-nan and --processes may be "
            f"given with it, not {' '.join(word for word in rest if word.startswith('-')) or rest[0]}"
        )
    command = assign(Resume(), values, problems)
    if not command.resume:
        problems.append(f"--resume needs a run directory: {PROGRAM} --resume RUN_DIR")
    raise_problems([*problems, *config_problems(command), *processes_problems(command.processes)])
    return command
