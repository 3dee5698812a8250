"""Ways to let a policy modify itself while somebody looks at it: as trained, not at all, or cut short."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents import Agent
from common.errors import UserError
from evaluation.subject import policy_copy
from policies import Policy, State
from policies.resets import parse_reset

MAX_SPAN = 1_000_000


@dataclass(frozen=True)
class Modification:
    """What happens to a policy's memory while it plays.

    Attributes:
        kind: "on": as it was trained. "frozen": the weights stay as they are at that moment, also through the
            starts of episodes. "reset": cleared at once, then at the starts of episodes and every `span` steps.
        span: steps; None unless `kind` is "reset".
    """

    kind: str = "on"
    span: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("on", "frozen", "reset"):
            raise UserError(f"unknown self-modification {self.kind!r}: use on, frozen or a number of steps")
        if (self.kind == "reset") != (self.span is not None):
            raise UserError("give a number of steps with reset, and with nothing else")
        if self.span is not None and not 1 <= self.span <= MAX_SPAN:
            raise UserError(f"weights cannot be reset every {self.span} steps: give 1 to {MAX_SPAN}")

    def __str__(self) -> str:
        return self.kind if self.span is None else str(self.span)


def parse_modification(text: str) -> Modification:
    """What "on", "frozen" or a number of steps stands for.

    Raises:
        UserError: it is none of these.
    """
    word = text.strip()
    if not word.isascii() or not word.isdigit():
        return Modification(word)
    return Modification("reset", int(word))


def refusals(policy: Policy, name: str) -> dict[str, str | None]:
    """For each kind of `Modification`, why this policy cannot be put into it, or None if it can.

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


def modified_policy(agent: Agent, modification: Modification) -> Policy:
    """A copy of the agent's policy that does as `modification` says.

    Raises:
        UserError: this policy cannot.
    """
    rule = {"on": agent.policy.config.reset, "frozen": "never", "reset": str(modification.span)}
    policy = policy_copy(agent, rule[modification.kind])
    if modification.kind == "frozen":
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


def weights_in(policy: Policy, state: State) -> dict[str, Tensor]:
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
    weights = weights_in(policy, before)
    cleared, _ = policy.core.reset_rule.mask(before, starts.unsqueeze(0))
    norms = {}
    for name, old in weights.items():
        kept = torch.where(cleared[0, :, None, None, None], 0.0, old)
        norms[name] = (after[name] - kept).flatten(1).norm(dim=1)
    return norms
