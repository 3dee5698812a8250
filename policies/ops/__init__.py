"""What the recurrent cores run over time. `naive` is the reference of an operator, faster versions lie beside it.

All versions of an operator compute the same function. Which one runs is chosen by device and shape ("auto"), by a
core's configuration (`implementation`), or by the environment variable POLICY_OPS, which comes before both.
"""

from __future__ import annotations

import os

from common.config import OneOf
from common.errors import UserError, unknown_name
from policies.ops.deltanet import DELTANET
from policies.ops.operator import AUTO, Operator
from policies.ops.srwm import SRWM

VARIABLE = "POLICY_OPS"
"""Environment variable with the name of a version, for all operators that have one of this name."""

OPERATORS = {operator.name: operator for operator in (SRWM, DELTANET)}
"""Every operator with several versions by name."""


def implementations(*operators: Operator) -> OneOf:
    """What a core that runs these operators can be configured to: "auto", or a version of any of them."""
    names = dict.fromkeys(name for operator in operators for name in operator.versions)
    return OneOf((AUTO, *names), "operator implementation")


def requested(operator: Operator, implementation: str = AUTO) -> str:
    """What a layer asks `operator` for, now and ever after: what the environment says, or else `implementation`.

    "auto" where that is no version of this operator: a core may use several, and a name may mean something to one of
    them alone.

    Raises:
        UserError: the environment names a version that no operator has.
    """
    forced = os.environ.get(VARIABLE, "")
    known = implementations(*OPERATORS.values())
    if forced and forced not in known.names:
        problem = unknown_name(known.kind, forced, known.names)
        raise UserError(f"environment variable {VARIABLE}: {problem}")
    name = forced or implementation
    return name if name in operator.versions else AUTO
