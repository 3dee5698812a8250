"""What may be done to a policy's self-modification while somebody looks at it: nothing, freezing, or resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from agents import Agent
from common.config import OneOf, Range, check
from common.errors import UserError
from evaluation.agent_info import policy_copy
from policies import Policy, name_of
from policies.resets import MAX_SPAN

KINDS = ("on", "frozen", "reset")


@dataclass(frozen=True)
class Intervention:
    """What happens to a policy's memory while it plays.

    Attributes:
        kind: "on": as it was trained. "frozen": the weights stay as they are at that moment, also through the
            starts of episodes. "reset": cleared at once, then at the starts of episodes and every `span` steps.
        span: steps; None unless `kind` is "reset".
    """

    kind: Annotated[str, OneOf(KINDS, "self-modification")] = "on"
    span: Annotated[int | None, Range(1, MAX_SPAN)] = None

    def contradictions(self) -> list[str]:
        """See `common.config.problems`."""
        if (self.kind == "reset") == (self.span is not None):
            return []
        return ["give a number of steps with reset, and with nothing else"]

    def __str__(self) -> str:
        return self.kind if self.span is None else str(self.span)


def parse_intervention(text: str) -> Intervention:
    """What "on", "frozen" or a number of steps stands for.

    Raises:
        UserError: it is none of these.
    """
    word = text.strip()
    number = word.isascii() and word.isdigit()
    intervention = Intervention("reset", int(word)) if number else Intervention(word)
    check(intervention)
    return intervention


def unsupported(policy: Policy) -> dict[str, str | None]:
    """For each kind of `Intervention`, why it cannot be done to this policy, or None if it can."""
    core, name = policy.core, name_of(policy.config.core)
    return {
        "on": None,
        "frozen": None if core.self_modifying else f"{name} does not modify its weights",
        "reset": None if core.is_recurrent else f"{name} remembers nothing that could be reset",
    }


def policy_under(agent: Agent, intervention: Intervention) -> Policy:
    """A copy of the agent's policy with this intervention.

    Raises:
        UserError: it is impossible for this policy.
    """
    reason = unsupported(agent.policy)[intervention.kind]
    if reason is not None:
        raise UserError(reason)
    rule = {"on": agent.policy.config.reset, "frozen": "never", "reset": str(intervention.span)}
    policy = policy_copy(agent, rule[intervention.kind])
    if intervention.kind == "frozen":
        policy.core.set_writing(False)
    return policy
