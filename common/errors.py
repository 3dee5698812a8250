"""Errors that a user can cause, and failures of a run, told apart from bugs.

The command lines print a `UserError` as one line and leave with exit code 2, a `RunError` as one line and with code 1;
any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user asked for cannot be had. The message is one line and says what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


class RunError(RuntimeError):
    """A run cannot go on: numbers that are not finite, environments that died. The message is one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, limit: int = 2000) -> str:
    r"""`text` as a terminal can show it: what is not a character there is written as its number, and a text longer
    than `limit` loses its middle. What strangers wrote into a file moves no cursor and fills no screen.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if len(text) > limit:
        text = f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def shown(value: object, *, quoted: bool = True, limit: int = 60) -> str:
    """A value as a message repeats it: in one line, and not longer than `limit` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: limit + 1]  # before it is quoted: it may be of any length
    try:
        text = repr(value) if quoted else str(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists within lists without end
        text = f"a {type(value).__name__} too large to show"
    return printable(text if len(text) <= limit else f"{text[: limit - 3]}...")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not in `known`, with the nearest names first.

    >>> unknown_name("game", "bigfsh", ["bigfish", "maze"])
    "unknown game 'bigfsh': did you mean bigfish? (known: bigfish, maze)"
    """
    names = list(known)
    near = get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {shown(name)}: {hint}(known: {', '.join(names)})"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Those of the dotted names `known` that `name` may have been meant for.

    >>> nearest("lerning_rate", ["games", "agent.learning_rate"])
    ['agent.learning_rate']
    """
    names = list(known)
    by_last_part = {other.rpartition(".")[2].lstrip("-"): other for other in reversed(names)}
    last_part = name.rpartition(".")[2].lstrip("-")
    return get_close_matches(name, names, n=2, cutoff=0.7) or [
        by_last_part[part] for part in get_close_matches(last_part, by_last_part, n=1)
    ]


def raise_problems(problems: Sequence[str]) -> None:
    """Raise one `UserError` that lists `problems`, each once, if there are any."""
    unique = list(dict.fromkeys(printable(problem, 1000) for problem in problems))
    if len(unique) == 1:
        raise UserError(unique[0])
    if unique:
        raise UserError(f"{len(unique)} problems: {'; '.join(unique)}")
