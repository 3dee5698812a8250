"""Methods of continual learning, by name.

A new one is a subclass of `Retention` in a file of its own, and a line in `RETENTIONS`; where it has settings, their
class is one more base of `RetentionConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.retention.base import Retention, Rollouts
from agents.retention.clear import Clear, ClearConfig
from agents.retention.combined import SEPARATOR, Combined
from agents.retention.ewc import Ewc, EwcConfig, OnlineEwc
from agents.retention.generative import GenerativeConfig, GenerativeReplay
from agents.retention.lwf import LearningWithoutForgetting, LwfConfig
from agents.retention.si import SiConfig, SynapticIntelligence
from agents.retention.wpl import WeightPlasticityLoss, WplConfig
from agents.retention.xdg import ContextGating, XdgConfig
from common.config import problems
from common.errors import raise_problems, unknown_name

RETENTIONS: dict[str, type[Retention]] = {
    method.name: method
    for method in (
        Retention,
        Ewc,
        OnlineEwc,
        SynapticIntelligence,
        LearningWithoutForgetting,
        ContextGating,
        Clear,
        GenerativeReplay,
        WeightPlasticityLoss,
    )
}
"""Every method by name; "none" is fine-tuning."""


@dataclass(frozen=True)
class RetentionConfig(GenerativeConfig, EwcConfig, SiConfig, LwfConfig, WplConfig, XdgConfig, ClearConfig):
    """The settings of all methods. One that is not used is not looked at."""

    def contradictions(self) -> list[str]:
        """What does not go together in the settings of each."""
        bases: list[Any] = [base for base in type(self).__mro__ if base is not RetentionConfig]
        return [
            problem
            for base in bases
            if "contradictions" in vars(base)
            for problem in base.contradictions(self)
        ]


def retention_names(names: str) -> list[str]:
    """The methods in a text such as "xdg+si"."""
    return [name.strip() for name in names.split(SEPARATOR)]


def retention_problems(names: str) -> list[str]:
    """What is wrong with a text that names methods, a line each."""
    parts = retention_names(names)
    found = [unknown_name("retention", name, RETENTIONS) for name in parts if name not in RETENTIONS]
    if not found and len(parts) > 1:
        found += [
            f"retention {names}: {name} cannot be combined with itself: name it once"
            for name in dict.fromkeys(parts)
            if parts.count(name) > 1
        ]
        if "none" in parts:
            found.append(f"retention {names}: none cannot be combined with others: leave it out")
    return found


def make_retention(names: str, config: RetentionConfig | None = None) -> Retention:
    """The method called `names`, or several, joined by "+".

    Raises:
        UserError: there is none of that name, or settings are impossible.
    """
    raise_problems(retention_problems(names) + ([] if config is None else problems(config, "retain.")))
    whole = RetentionConfig() if config is None else config  # as checkpoints hold it
    methods = [RETENTIONS[name](whole) for name in retention_names(names)]
    return methods[0] if len(methods) == 1 else Combined(methods)


__all__ = [
    "RETENTIONS",
    "Retention",
    "RetentionConfig",
    "Rollouts",
    "make_retention",
    "retention_names",
    "retention_problems",
]
