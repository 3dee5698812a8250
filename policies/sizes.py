"""Checks of the sizes in configurations."""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import UserError


def require_positive(what: str, value: object) -> None:
    """Raise `UserError` unless `value` is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{what} is {value!r}: give a whole number, 1 or more")


def require_positive_all(what: str, values: object) -> None:
    """Raise `UserError` unless `values` is a non-empty sequence of whole numbers, each 1 or more."""
    if not isinstance(values, Iterable) or isinstance(values, str) or not list(values):
        raise UserError(f"{what} is {values!r}: give one or more whole numbers")
    for value in values:
        require_positive(what, value)
