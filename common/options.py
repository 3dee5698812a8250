"""Command lines whose options are the fields of a dataclass; mistakes are one line."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from common.cli import without_box
from common.errors import UserError, raise_problems, unknown_name

OptionsType = TypeVar("OptionsType")

Flag = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")]
"""An option without a value."""


def words_option(metavar: str, default: str) -> object:
    """How the help shows an option that is None or empty unless it is given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def parse_options(
    kind: type[OptionsType], words: Sequence[str], program: str, positional: str
) -> OptionsType:
    """The options that `words` give.

    Args:
        kind: dataclass of options; its docstring describes them.
        words: without the program's name.
        program: how it is started.
        positional: the field that takes the words without an option, a run or a checkpoint; "" if there is none.

    Raises:
        UserError: they cannot be read.
        SystemExit: after showing the help, code 0.
    """
    screen = io.StringIO()
    try:
        with contextlib.redirect_stderr(screen):
            options, unknown = tyro.cli(kind, prog=program, args=list(words), return_unknown_args=True)
    except SystemExit as exit:
        if not exit.code:
            raise
        if positional and "Required options" in screen.getvalue():
            raise UserError(f"name a run or a checkpoint: {program} RUN_OR_CHECKPOINT") from None
        raise UserError(f"{without_box(screen.getvalue())}; see {program} --help") from None
    if unknown:
        known = [name for name in _names(options) if name != f"--{positional}"]
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not names:
            advice = "name one run or checkpoint; " if positional else ""
            raise UserError(f"unexpected {' '.join(unknown)}: {advice}see {program} --help")
        raise_problems([unknown_name("option", name, known) for name in names])
    return options


def _names(options: Any) -> Iterator[str]:
    """All options; those of nested dataclasses stand among the others."""
    for item in fields(options):
        value = getattr(options, item.name)
        if is_dataclass(value):
            yield from _names(value)
        else:
            yield "--" + item.name.replace("_", "-")
