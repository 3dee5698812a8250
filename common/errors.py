"""Errors that a user can cause, and failures of a run, told apart from bugs.

The command lines print a `UserError` as one line and leave with exit code 2, a `RunError` as one line and with code 1;
any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user asked for cannot be had. The message is one line and says what to do."""


class RunError(RuntimeError):
    """A run cannot go on: numbers that are not finite, environments that died. The message is one line."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not in `known`, with the nearest names first.

    >>> unknown_name("game", "bigfsh", ["bigfish", "maze"])
    "unknown game 'bigfsh': did you mean bigfish? (known: bigfish, maze)"
    """
    names = list(known)
    near = get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}(known: {', '.join(names)})"


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
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        raise UserError(unique[0])
    if unique:
        raise UserError(f"{len(unique)} problems: {'; '.join(unique)}")
