"""Configuration dataclasses from plain values, with clear errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from common.errors import UserError, unknown_name

Config = TypeVar("Config")


def build_config(kind: type[Config], values: Mapping[str, Any], what: str) -> Config:
    """`kind(**values)`, where a list (JSON has no tuples) becomes a tuple.

    Args:
        kind: a dataclass that checks its own values.
        what: how to call a field in an error, such as "field of core 'srwm'".

    Raises:
        UserError: `kind` has no such field, or refuses a value.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UserError(
                unknown_name(what, str(name), known) if known else f"unknown {what} {name!r}: it has none"
            )
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
