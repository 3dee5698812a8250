"""What may be done to a policy's self-modification while somebody looks at it: nothing, freezing, or resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from agents import Agent
from common.config import OneOf, Range, check
from evaluation.agent_info import policy_copy
from policies import Policy, State
from policies.resets import parse_reset

KINDS = ("on", "frozen", "reset")
MAX_SPAN = 1_000_000


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


def unsupported(policy: Policy, name: str) -> dict[str, str | None]:
    """For each kind of `Intervention`, why it cannot be done to this policy, or None if it can.

    Args:
        policy: in question.
        name: of its core, for the reasons.
    """
    core = policy.core
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
    rule = {"on": agent.policy.config.reset, "frozen": "never", "reset": str(intervention.span)}
    policy = policy_copy(agent, rule[intervention.kind])
    if intervention.kind == "frozen":
        policy.core.set_writing(False)
    return policy


def carried_state(state: State, policy: Policy) -> State:
    """`state`, which may come from a copy with another reset rule, as a state of `policy`.

    The memory stays as it is. A rule that counts steps starts to count, and so clears before the next step.
    """
    batch = next((len(tensor) for tensor in state.values()), None)
    if batch is None:
        return {}
    rule = parse_reset(policy.config.reset).initial_state(batch, policy.device)
    return {**policy.core.memory(state), **rule}


def written_weights(policy: Policy, state: State) -> dict[str, Tensor]:
    """The weights that `policy` has written, W_t - W_0: by name, such as "layer0/shift", (B, heads, rows, columns).

    Empty for a policy that does not modify itself.
    """
    return policy.core.written_weights(state)


@torch.no_grad()
def write_norms(policy: Policy, before: State, after: State, starts: Tensor) -> dict[str, Tensor]:
    """How much one step has written: the Frobenius norm of W_t - W_{t-1}, all heads together, by name (B,).

    Args:
        policy: that made the step.
        before, after: its states.
        starts: where the step was the first of an episode (B,).
    """
    weights = written_weights(policy, before)
    cleared, _ = policy.core.reset_rule.mask(before, starts.unsqueeze(0))
    norms = {}
    for name, old in weights.items():
        kept = torch.where(cleared[0, :, None, None, None], 0.0, old)
        norms[name] = (after[name] - kept).flatten(1).norm(dim=1)
    return norms
