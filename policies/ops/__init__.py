"""Sequence operators of the cores, one package each: `naive` is the reference, faster versions beside it.

All versions of an operator compute the same function. Which one runs is chosen by device and shape ("auto"), by a
core's configuration (`implementation`), or by the environment variable POLICY_OPS, which comes before both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from common.errors import UserError, unknown_name
from policies.ops import deltanet, lstm, srwm

VARIABLE = "POLICY_OPS"
"""Environment variable with the name of a version, for all operators that have one of this name."""


class Operator(NamedTuple):
    """The versions of an operator by name, and what "auto" stands for: `choose(device, steps, width, output)`."""

    implementations: Mapping[str, Callable[..., Any]]
    choose: Callable[[torch.device, int, int, int], str]


OPERATORS: dict[str, Operator] = {
    "srwm": Operator(srwm.IMPLEMENTATIONS, srwm.choose),
    "deltanet": Operator(deltanet.IMPLEMENTATIONS, deltanet.choose),
    "lstm": Operator(lstm.IMPLEMENTATIONS, lstm.choose),
}
"""Every operator by name."""


def check_requested(implementation: str, operators: Iterable[str] = tuple(OPERATORS)) -> None:
    """Raise `UserError` unless `implementation` is "auto" or a version of one of these operators."""
    names = ["auto", *dict.fromkeys(name for op in operators for name in OPERATORS[op].implementations)]
    if implementation not in names:
        raise UserError(unknown_name("operator implementation", str(implementation), names))


def requested(operator: str, implementation: str = "auto") -> str:
    """What to ask `operator` for: the environment's choice, or else `implementation`; "auto" where that is no version
    of this operator (a core may use several, and a name may mean something to one of them alone).

    Raises:
        UserError: the environment names a version that no operator has.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced:
        try:
            check_requested(forced)
        except UserError as error:
            raise UserError(f"environment variable {VARIABLE}: {error}") from None
    name = forced or implementation
    return name if name in OPERATORS[operator].implementations else "auto"


def chosen(
    operator: str,
    device: torch.device | str,
    steps: int,
    width: int = 1,
    output: int = 1,
    implementation: str = "auto",
) -> str:
    """The version that runs when a core with this `implementation` calls `operator`.

    Args:
        operator: a name in `OPERATORS`.
        device: where the tensors are.
        steps: of the sequence.
        width, output: D and E of a head.

    >>> chosen("deltanet", "cpu", steps=50)
    'chunk'
    """
    name = requested(operator, implementation)
    return OPERATORS[operator].choose(torch.device(device), steps, width, output) if name == "auto" else name
