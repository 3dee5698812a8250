"""States of environments as flat dictionaries of arrays, integers and text, as checkpoints store them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.errors import UserError, raise_problems

State = dict[str, Any]


def join_states(parts: Sequence[Mapping[str, Any]]) -> State:
    """The entries of all `parts` in one dictionary; "1/native" is that of the second one."""
    return {f"{number}/{key}": value for number, part in enumerate(parts) for key, value in part.items()}


def split_states(state: Mapping[str, Any], count: int, what: str) -> list[State]:
    """The parts that `join_states` put together; other entries are left out.

    Args:
        state: What holds the parts.
        count: How many there must be.
        what: What the parts are called in the message if there are others: "groups of environments".

    Raises:
        UserError: There are not `count` parts.
    """
    parts: dict[int, State] = {}
    for key, value in state.items():
        number, _, rest = key.partition("/")
        if rest and number.isdecimal():
            parts.setdefault(int(number), {})[rest] = value
    if sorted(parts) != list(range(count)):
        raise UserError(f"environment state has {len(parts)} {what}, this one has {count}")
    return [parts[number] for number in range(count)]


def check_state(state: Mapping[str, Any], keys: Collection[str], expected: Mapping[str, Any]) -> None:
    """Raise `UserError` if `state` lacks some of `keys`, or is of an environment without the `expected` entries."""
    if missing := sorted(set(keys) - set(state)):
        raise UserError(f"this is not an environment state: it lacks {', '.join(missing)}")
    raise_problems(
        [
            f"environment state has {key} {state.get(key)!r}, this environment has {value!r}"
            for key, value in expected.items()
            if state.get(key) != value
        ]
    )
