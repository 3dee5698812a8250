"""What plain values and tensors may be: small descriptions that are checked before anything is done with a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from common.errors import shown

MAX_NAME = 1000
"""Characters of a name or a text."""


class Schema(ABC):
    """What a value may be."""

    @abstractmethod
    def check(self, value: Any, where: str) -> None:
        """Raise ValueError, which names the place `where`, if `value` is something else."""


@dataclass(frozen=True)
class Anything(Schema):
    """Any value: whoever takes it up examines it."""

    def check(self, value: Any, where: str) -> None:
        """Nothing is wrong."""


@dataclass(frozen=True)
class Whole(Schema):
    """A whole number from `low` to `high`."""

    low: int = 0
    high: int = 10**15

    def check(self, value: Any, where: str) -> None:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(
                f"its {where} is {_shown(value)}, not a number from {self.low:,} to {self.high:,}"
            )


@dataclass(frozen=True)
class Number(Schema):
    """A number; what came of a game may be infinite, or none."""

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (int, float):
            raise ValueError(f"its {where} is {_shown(value)}, not a number")


@dataclass(frozen=True)
class Text(Schema):
    """A text of at most `MAX_NAME` characters."""

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > MAX_NAME:
            raise ValueError(f"its {where} is {_shown(value)}, not a name")


@dataclass(frozen=True)
class Array(Schema):
    """A tensor or array.

    Attributes:
        types: names of what its elements may be: "float32".
        dimensions: how many it has; None for any number.
    """

    types: Collection[str]
    dimensions: int | None = None

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, (torch.Tensor, np.ndarray)):
            raise ValueError(f"its {where} is {_shown(value)}, not a tensor")
        kind = str(value.dtype).removeprefix("torch.")
        if kind not in self.types:
            raise ValueError(f"its {where} holds {kind} instead of {' or '.join(self.types)}")
        if self.dimensions is not None and value.ndim != self.dimensions:
            raise ValueError(f"its {where} has {value.ndim} dimensions instead of {self.dimensions}")


@dataclass(frozen=True)
class Optional(Schema):
    """None, or what `inner` describes."""

    inner: Schema

    def check(self, value: Any, where: str) -> None:
        if value is not None:
            self.inner.check(value, where)


@dataclass(frozen=True)
class NumberOr(Schema):
    """A number, or what `array` describes."""

    array: Array

    def check(self, value: Any, where: str) -> None:
        if type(value) not in (int, float):
            self.array.check(value, where)


@dataclass(frozen=True)
class Items(Schema):
    """A list of at most `most` values."""

    each: Schema
    most: int
    least: int = 0

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, (list, tuple)) or not self.least <= len(value) <= self.most:
            raise ValueError(f"its {where} is {_shown(value)}, not a list of {self.least} to {self.most:,}")
        for item in value:
            self.each.check(item, where)


@dataclass(frozen=True)
class Named(Schema):
    """Values under any names."""

    each: Schema

    def check(self, value: Any, where: str) -> None:
        for name, item in _table(value, where).items():
            self.each.check(item, f"{where}/{str(name)[:60]}")


@dataclass(frozen=True)
class Table(Schema):
    """Values under known names.

    Attributes:
        needed: must be there.
        optional: may be there. Other names are left to whoever looks for them.
    """

    needed: Mapping[str, Schema]
    optional: Mapping[str, Schema] = field(default_factory=dict)

    def check(self, value: Any, where: str) -> None:
        table = _table(value, where)
        for name, schema in {**self.needed, **self.optional}.items():
            if name in table:
                schema.check(table[name], f"{where}/{name}" if where else name)
            elif name in self.needed:
                raise ValueError(f"it has no {f'{where}/{name}' if where else name}")


def _table(value: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"its {where or 'content'} is {_shown(value)}, not a table")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}" if isinstance(value, (Mapping, list, tuple)) else shown(value)
