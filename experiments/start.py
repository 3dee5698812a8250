"""The agent that a sequence begins with, where it is not to learn from nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents import Agent, read_checkpoint
from common.errors import UserError
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from policies import Policy
from records.config import TrainConfig
from records.selection import find_checkpoint

Weights = Mapping[str, Tensor]


def read_start(config: TrainConfig) -> Weights | None:
    """The weights that `config` begins with; None for fresh ones.

    Raises:
        UserError: there are none, or they are of another network.
    """
    if config.sequence.start is None:
        return None
    path = find_checkpoint(config.sequence.start)
    weights: Weights = read_checkpoint(path)["learner"]["policy"]
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # takes no memory, and draws nothing
        wanted = Policy(config.policy, IMAGE_SHAPE, NUM_ACTIONS).state_dict()
    differing = [
        name
        for name in sorted({*wanted, *weights})
        if name not in wanted or name not in weights or wanted[name].shape != weights[name].shape
    ]
    if differing:
        raise UserError(
            f"sequence.start {path} holds another network, which differs in {', '.join(differing[:3])}: "
            "give the policy's settings as in the config.json of its run"
        )
    return weights


def begin_with(agent: Agent, weights: Weights) -> None:
    """Give a new agent these weights; its optimizer starts anew."""
    agent.policy.load_state_dict(weights)
    agent.actors.follow_learner()
