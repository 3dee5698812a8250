"""Many problems, one line."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import UserError


def raise_problems(problems: Sequence[str]) -> None:
    """Raise one `UserError` that lists `problems`, if there are any."""
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        raise UserError(unique[0])
    if unique:
        raise UserError(f"{len(unique)} problems: {'; '.join(unique)}")
