"""From the words of a command line to a checked configuration.

tyro makes the options out of the settings and their descriptions. The values are read and checked here, in
the way a stored configuration is, so that everything wrong with a command is shown at once and in one line.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from agents import ALGORITHMS
from agents.numerics import ON_NAN
from common.cli import without_box
from common.errors import UserError, raise_problems, unknown_name
from experiments.presets import PRESETS
from policies import CORES
from records import validation
from records.config import TrainConfig, read_settings, setting_names, with_policy
from records.directory import existing_problems
from records.settings import build, field_types, item_type, parse_word, without_none

PROGRAM = "python train.py"


@dataclass(frozen=True)
class Launch:
    """A new run.

    Attributes:
        preset: what it started from.
        config: its settings.
        run_dir: where it goes; None for a new directory below runs/.
    """

    preset: str
    config: TrainConfig
    run_dir: str | None


@dataclass(frozen=True)
class Resume:
    """A run to be continued.

    Attributes:
        run_dir: where it is.
        total_steps: environment steps at which it shall now end; none for the stored number.
        on_nan: what to do from now on when numbers are not finite, stop or skip; none for what is stored.
    """

    run_dir: str
    total_steps: int | None = None
    on_nan: str | None = None


def overview() -> str:
    """What `train.py` can be asked, without options."""
    width = max(map(len, PRESETS))
    lines = [
        "Train an agent on ProcGen games.",
        "",
        f"  {PROGRAM} PRESET [OPTIONS]      start a run",
        f"  {PROGRAM} PRESET --help         show every option and its value in that preset",
        f"  {PROGRAM} --resume RUN_DIR      continue a run; --total-steps N extends it",
        "",
        "Presets:",
        *(f"  {name:{width}}  {preset.summary}" for name, preset in PRESETS.items()),
        "",
        f"Policies (--policy):       {', '.join(CORES)}",
        f"Algorithms (--algorithm):  {', '.join(ALGORITHMS)}",
        "",
        "For example:",
        f"  {PROGRAM} quick --policy deltanet --games maze heist --slots 64 --agent.learning-rate 3e-4",
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
    preset, *rest = words
    problems: list[str] = []
    if preset.startswith("-"):
        raise UserError(f"name a preset before the options: {', '.join(PRESETS)}; see {PROGRAM} --help")
    if preset not in PRESETS:
        problems.append(unknown_name("preset", preset, PRESETS))
    start = PRESETS.get(preset, PRESETS["quick"])
    # The policy and the algorithm decide which options there are, so they are looked up first.
    policy, algorithm = _last_value(rest, "--policy"), _last_value(rest, "--algorithm")
    config = start.with_algorithm(algorithm) if algorithm in ALGORITHMS else start.config
    config = with_policy(config, policy) if policy in CORES else config
    values, unknown = _Reader().read(config, rest, f"{PROGRAM} {preset}", start.summary)
    problems += _unknown_options(unknown, config, preset, policy, algorithm)
    run_dir = values.pop("run_dir")
    config = read_settings(values, config, problems)
    problems += validation.problems(config)
    if run_dir is not None:
        problems += existing_problems(run_dir)
    raise_problems(problems)
    return Launch(preset, config, run_dir)


def _parse_resume(words: Sequence[str]) -> Resume:
    problems: list[str] = []
    values, unknown = _Reader().read(Resume(""), words, PROGRAM, "Continue a run.", ("resume", "run_dir"))
    if unknown:
        problems.append(
            f"--resume continues a run with its stored settings: only --total-steps and --on-nan may be given with it, "
            f"not {' '.join(word for word in unknown if word.startswith('-')) or unknown[0]}"
        )
    command = build(Resume, values, Resume(""), problems)
    if not command.run_dir:
        problems.append(f"--resume needs a run directory: {PROGRAM} --resume RUN_DIR")
    if command.total_steps is not None and command.total_steps < 1:
        problems.append(f"total_steps is {command.total_steps}: give 1 or more")
    if command.on_nan is not None:
        problems += [unknown_name("on_nan", command.on_nan, ON_NAN)] * (command.on_nan not in ON_NAN)
    raise_problems(problems)
    return command


def _last_value(words: Sequence[str], option: str) -> str | None:
    """What follows the last `option` in `words`, as ``--option value`` or ``--option=value``."""
    found = None
    for word, following in itertools.zip_longest(words, words[1:]):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else following
    return found


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _unknown_options(
    words: Sequence[str], config: TrainConfig, preset: str, policy: str | None, algorithm: str | None
) -> list[str]:
    """A line for each option that does not exist, with the nearest ones."""
    known = [_option(name) for name in [*setting_names(config), "run_dir"]]
    # What belongs to an unknown policy or algorithm cannot be judged.
    unjudged = [
        prefix
        for prefix, name, names in (("--core.", policy, CORES), ("--agent.", algorithm, ALGORITHMS))
        if name is not None and name not in names
    ]
    found, after_option = [], False
    for word in words:
        if not word.startswith("-"):
            if not after_option:
                found.append(f"unexpected word {word!r}: values follow an option, such as --games maze heist")
            continue
        after_option = True
        name = word.partition("=")[0]
        if any(name.startswith(prefix) for prefix in unjudged):
            continue
        last_parts = {option.rpartition(".")[2].lstrip("-"): option for option in reversed(known)}
        near = get_close_matches(name, known, n=2, cutoff=0.7) or [
            last_parts[part]
            for part in get_close_matches(name.rpartition(".")[2].lstrip("-"), last_parts, n=1)
        ]
        hint = f"did you mean {' or '.join(near)}?" if near else ""
        owner = {"--core": f" of policy {config.policy}", "--agent": f" of algorithm {config.algorithm}"}
        whose = owner.get(name.partition(".")[0], "")
        see = f"(all options: {PROGRAM} {preset if preset in PRESETS else 'PRESET'} --help)"
        found.append(" ".join(filter(None, [f"unknown option {name}{whose}:", hint, see])))
    return found


class _Reader:
    """tyro with our way of reading values: nested plain data come out, right or wrong."""

    def __init__(self) -> None:
        self._rename: tuple[str, str] | None = None
        self._registry = ConstructorRegistry()
        self._registry.struct_rule(self._struct)
        self._registry.primitive_rule(self._primitive)

    def read(
        self,
        default: Any,
        words: Sequence[str],
        program: str,
        description: str,
        rename: tuple[str, str] | None = None,
    ) -> tuple[dict[str, Any], list[str]]:
        """The settings of `default` with what `words` say, as nested plain data, and the words left over.

        `rename` gives an option another name than its field has.
        """
        self._rename = rename
        screen = io.StringIO()
        try:
            with contextlib.redirect_stderr(screen):
                result: Any = tyro.cli(
                    type(default),
                    default=default,
                    args=list(words),
                    prog=program,
                    description=description,
                    registry=self._registry,
                    return_unknown_args=True,
                )
        except SystemExit as exit:
            if not exit.code:
                raise
            raise UserError(without_box(screen.getvalue())) from None
        values, unknown = result
        if rename is not None:
            values[rename[1]] = values.pop(rename[0])
        return values, unknown

    def _struct(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type):
            return None
        hints = field_types(info.type)
        texts = descriptions(info.type)
        specs = []
        for item in fields(info.type):
            value = getattr(info.default, item.name)
            hint = type(value) if is_dataclass(value) else hints[item.name]
            name = self._rename[0] if self._rename and self._rename[1] == item.name else item.name
            specs.append(StructFieldSpec(name, hint, value, texts.get(item.name)))
        if info.type is TrainConfig:
            text = "where the run goes; it must not exist yet. none for a new directory below runs/"
            specs.append(StructFieldSpec("run_dir", str | None, None, text))  # type: ignore[arg-type]
        return StructConstructorSpec(dict, tuple(specs))

    def _primitive(self, info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        inner, optional = without_none(info.type)
        item = item_type(inner)
        if (item or inner) not in (int, float, str):
            return None
        names = {int: "INT", float: "FLOAT", str: "TEXT"}
        return PrimitiveConstructorSpec(
            nargs=1 if item is None else "*",
            metavar=f"{names[item or inner]}{'|none' if optional else ''}{' ...' if item else ''}",
            instance_from_str=partial(self._value, info.type),
            is_instance=lambda value: True,
            str_from_instance=lambda value: (
                [str(entry) for entry in value]
                if isinstance(value, tuple)
                else ["none" if value is None else str(value)]
            ),
        )

    @staticmethod
    def _value(hint: Any, words: list[str]) -> Any:
        item = item_type(hint)
        return _read(hint, words[0]) if item is None else tuple(_read(item, word) for word in words)


def _read(hint: Any, word: str) -> Any:
    """A word as a value; what cannot be read stays a text, for `read_settings` to report with its name."""
    try:
        return parse_word(hint, word)
    except ValueError:
        return word


def descriptions(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say about each attribute."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for item in docstring_parser.parse(base.__doc__ or "").params:
            found[item.arg_name] = " ".join((item.description or "").split())
    return found
