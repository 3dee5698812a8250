"""Context-dependent gating (Masse et al. 2018, arXiv 1802.01569).

In each task a fixed random share of the hidden units is silent, in acting and in learning, so that tasks share little
of what lies behind these units: the encoder's output, the hidden units of the core's feed-forward blocks, an LSTM's
output. Convolutions and a core's own matrices stay shared: the published best is the combination with a penalty, here
``xdg+si`` or ``xdg+ewc``. The masks are part of the policy, and of every checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from agents.config import AgentConfig
from agents.retention.base import Retention
from common.config import Range
from policies import PolicyConfig


@dataclass(frozen=True)
class XdgConfig:
    """Settings of context-dependent gating.

    Attributes:
        gated_share: xdg: share of the units that is silent in each task.
        gated_apart: xdg: let no unit speak in two tasks.
    """

    gated_share: Annotated[float, Range(0, 1, open_high=True)] = 0.8
    gated_apart: bool = False


class ContextGating(Retention):
    """Has gates built into the policy; nothing else is left to do."""

    name = "xdg"
    needs_identity = True
    fits_processes = True
    config_class = XdgConfig
    inert: ClassVar[dict[str, Any]] = {"gated_share": 0.0}

    def problems(self, policy: PolicyConfig, agent: AgentConfig) -> list[str]:
        return super().problems(policy, agent) or self.policy_config(policy, 0).tasks.contradictions()

    def policy_config(self, config: PolicyConfig, seed: int) -> PolicyConfig:
        share, apart = self.config.gated_share, self.config.gated_apart
        tasks = replace(config.tasks, gated_share=share, gated_apart=apart, gate_seed=seed)
        return replace(config, tasks=tasks)
