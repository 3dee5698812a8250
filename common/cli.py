"""Command lines: options made from the fields of dataclasses, and mistakes of users as one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NoReturn, TypeVar

from common.config import OneOf, Option, assign, options
from common.errors import RunError, UserError, nearest, printable, raise_problems, shown

OptionsType = TypeVar("OptionsType")

RUN_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130


def run_command(main: Callable[[], int]) -> int:
    """Run `main` and return the exit code of the process.

    A `UserError` and an error of the operating system (a full disk, a directory that is read-only) become
    one line on stderr and code 2, a `RunError` one line and code 1. Other exceptions are bugs and keep their traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no character is worth a run
            stream.reconfigure(errors="backslashreplace")
    try:
        return main()
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): nothing is wrong, and nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _complain(str(error))
    except RunError as error:
        _complain(str(error))
        return RUN_FAILED
    except OSError as error:
        return _complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def with_subcommands(main: Callable[[], int], modules: Mapping[str, str]) -> Callable[[], int]:
    """`main`, or ``main(words)`` of the module that the first word of the command line names.

    It is imported only when asked for, so that one command need not wait for the libraries of another.
    """

    def run() -> int:
        word, *rest = sys.argv[1:] or [""]
        if word not in modules:
            return main()
        code: int = importlib.import_module(modules[word]).main(rest)
        return code

    return run


def _complain(message: str) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return USER_ERROR


# How the help shows a field


@dataclass(frozen=True)
class Shown:
    """What the help shows for a field, in its type: ``Annotated[str | None, Shown("FILE", "none")]``.

    `metavar` stands for the value, and `default` for that of a field that is None or empty; "" shows none.
    """

    metavar: str
    default: str | None = None


FLAG = object()
Flag = Annotated[bool, FLAG]
"""An option without a value and without an opposite."""


# Parsing


class _Parser(argparse.ArgumentParser):
    """Raises `UserError` where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


class _Switch(argparse.Action):
    """``--videos`` and ``--no-videos``; of a nested setting, ``--agent.no-decay``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = max(110, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, max_help_position=38, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return " ".join(filter(None, [" / ".join(action.option_strings), str(action.metavar or "")]))


def parse_known(
    words: Sequence[str],
    program: str,
    description: str,
    known: Iterable[Option],
    positional: Option | None = None,
    titles: Mapping[str, str] = MappingProxyType({}),
    add_help: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """The values that `words` give to options, as texts by name, and the words that belong to no option.

    Args:
        program: how it is started.
        known: options; those with a common prefix stand together in the help.
        positional: shown in the help as what the words without an option are. They are left over: argparse would take
            them for missing where options stand before them.
        titles: what to call groups of options, by prefix.
        add_help: whether ``--help`` shows the options and leaves.

    Raises:
        UserError: an option lacks its value.
        SystemExit: after showing the help, code 0.
    """
    what = "" if positional is None else f" {_metavar(positional)}"
    parser = _Parser(
        program,
        f"{program}{what} [OPTIONS]",
        description,
        formatter_class=_Formatter,
        add_help=False,
        allow_abbrev=False,
    )
    if positional is not None:
        parser.add_argument_group(_metavar(positional), positional.description)
    groups = {}
    for option in known:
        name = option.name.rpartition(".")[0]  # "core" of "core.heads"
        if name not in groups:
            groups[name] = parser.add_argument_group(titles.get(name, name or "options"))
        _add_option(groups[name], option)
    if add_help:
        parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    namespace, rest = parser.parse_known_args(words)
    return vars(namespace), rest


def _add_option(group: Any, option: Option) -> None:
    how = {"dest": option.name, "default": argparse.SUPPRESS, "help": _help(option)}
    if FLAG in option.type.constraints:
        group.add_argument(option.flag, action="store_true", **how)
    elif option.type.scalar is bool:
        owner, dot, last = option.flag[2:].rpartition(".")
        group.add_argument(option.flag, f"--{owner}{dot}no-{last}", action=_Switch, nargs=0, **how)
    else:
        group.add_argument(
            option.flag, nargs="*" if option.type.is_tuple else None, metavar=_metavar(option), **how
        )


def unknown_options(words: Iterable[str], known: Iterable[Option], see: str) -> list[str]:
    """A line for each of the words left over that looks like an option, with the nearest ones; `see` ends each."""
    flags = [option.flag for option in known]
    found = []
    for name in [word.partition("=")[0] for word in words if word.startswith("-")]:
        near = nearest(name, flags)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        found.append(f"unknown option {shown(name)}: {hint}({see})")
    return found


def _metavar(option: Option) -> str:
    shown = _shown(option)
    if shown is not None:
        return shown.metavar
    one_of = next((item for item in option.type.constraints if isinstance(item, OneOf)), None)
    if option.choices:
        text = "NAME"
    elif one_of is not None and len("|".join(one_of.names)) <= 24:
        text = "|".join(one_of.names)
    else:
        text = {int: "N", float: "X", Path: "PATH"}.get(option.type.scalar, "TEXT")
    return f"{text}{'|none' if option.type.optional else ''}{' ...' if option.type.is_tuple else ''}"


def _help(option: Option) -> str:
    text = option.description.rstrip(".")
    if option.choices:
        text += f": {', '.join(option.choices)}"
    shown = _shown(option)
    default = shown.default if shown is not None else None
    if default is None and FLAG not in option.type.constraints and option.value is not MISSING:
        default = _text(option.value)
    return (f"{text} (default: {default})" if default else text).replace("%", "%%")


def _shown(option: Option) -> Shown | None:
    return next((item for item in option.type.constraints if isinstance(item, Shown)), None)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# Command lines that are one dataclass


def parse_options(
    kind: type[OptionsType], words: Sequence[str], program: str, positional: str = ""
) -> OptionsType:
    """The options that `words` (without the program's name) give, as a dataclass whose docstring describes them.

    The field `positional`, if there is one, takes the words without an option, such as a run.

    Raises:
        UserError: naming everything that is wrong with them.
        SystemExit: after showing the help, code 0.
    """
    every: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]
    required = [item.name for item in every if item.default is item.default_factory is MISSING]
    start = kind(**dict.fromkeys(required))
    known = {
        option.name: replace(option, value=MISSING) if option.name in required else option
        for option in options(start)
    }
    place = known.pop(positional, None)
    description = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:")[0]
    values, rest = parse_known(words, program, description, known.values(), place)
    problems = unknown_options(rest, known.values(), f"all options: {program} --help")
    if not problems:
        if place is not None and rest:
            values[positional], rest = (rest, []) if place.type.is_tuple else (rest[0], rest[1:])
        if rest:
            advice = "" if place is None else f"name one {_in_words(place)}; "
            problems.append(f"unexpected {shown(' '.join(rest), quoted=False)}: {advice}see {program} --help")
        for name in [name for name in required if name not in values]:
            if name == positional and place is not None:
                problems.append(f"name a {_in_words(place)}: {program} {_metavar(place)}")
            else:
                problems.append(f"{known[name].flag} is missing: give {known[name].type.wanted()}")
    wrong: list[str] = []
    result = assign(start, values, wrong)
    for name, is_, rest_of_line in (line.partition(" is ") for line in wrong):
        problems.append(f"--{name.replace('_', '-')}{is_}{rest_of_line}")
    raise_problems(problems)
    return result


def run_with_options(
    kind: type[OptionsType], main: Callable[[OptionsType], int | None], program: str, positional: str = ""
) -> int:
    """`run_command` for a `main` that takes options; the arguments are those of `parse_options`."""
    return run_command(lambda: main(parse_options(kind, sys.argv[1:], program, positional)) or 0)


def _in_words(option: Option) -> str:
    return _metavar(option).removesuffix(" ...").lower().replace("_", " ")
