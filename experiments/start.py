"""The agent that training begins with, where it is not to learn from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from agents import Agent, read_checkpoint
from agents.retention import make_retention
from common.errors import UserError
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from evaluation.loading import find_checkpoint
from policies import Policy
from records.config import TrainConfig, from_json

Weights = Mapping[str, Tensor]


def settings_of(start: str) -> TrainConfig:
    """The settings that the agent called `start` was trained with, as what to train it on with.

    Raises:
        UserError: there is no such agent, or it does not say.
    """
    path = find_checkpoint(start)
    experiment = read_checkpoint(path)["experiment"]
    if not experiment:
        raise UserError(f"{path} does not say what it was trained with: name a preset, or a --config, too")
    return replace(from_json(experiment), start=start)


def read_start(config: TrainConfig) -> Weights | None:
    """The weights that `config` begins with; None for fresh ones.

    Raises:
        UserError: there are none, or they are of another network.
    """
    if config.start is None:
        return None
    path = find_checkpoint(config.start)
    weights: Weights = read_checkpoint(path)["learner"]["policy"]
    method = make_retention(config.retention, config.retain)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # takes no memory, and draws nothing
        policy = Policy(method.policy_config(config.policy, config.seed), IMAGE_SHAPE, NUM_ACTIONS)
    wanted = dict(policy.named_parameters())
    differing = [
        name
        for name, parameter in wanted.items()
        if not (_fits(parameter, _source(name, weights)) or _is_fresh(name, weights))
    ]
    unused = [name for name in weights if name not in {_stored_name(other) for other in wanted}]
    # Buffers, such as the gates of a method, are not learned.
    unused = [name for name in unused if name.rpartition(".")[2] in ("weight", "bias")]
    if differing or unused:
        raise UserError(
            f"start {path} holds another network, which differs in "
            f"{', '.join([*differing, *unused][:3])}: give the policy's settings as in the config.json of its run"
        )
    return weights


def begin_with(agent: Agent, weights: Weights) -> None:
    """Give a new agent these weights; its optimizer starts anew.

    Where the agent has heads or cores for each task, those of the first task are what it begins with; the others are
    fresh.
    """
    with torch.no_grad():
        for name, parameter in agent.policy.named_parameters():
            if _is_fresh(name, weights):
                continue
            source = _source(name, weights)
            assert source is not None
            (parameter if parameter.shape == source.shape else parameter[0]).copy_(source)
    agent.actors.follow_learner()


def _stored_name(name: str) -> str:
    """What a parameter is called in a policy with one head and one core for all tasks."""
    return name.replace("actor.linear.", "actor.").replace("core.cores.0.", "core.")


def _is_fresh(name: str, weights: Weights) -> bool:
    """Whether a parameter is of another task's core than the first, and `weights` are of a policy that has one core."""
    return name.startswith("core.cores.") and _source(name, weights) is None


def _source(name: str, weights: Weights) -> Tensor | None:
    return weights.get(name, weights.get(_stored_name(name)))


def _fits(parameter: Tensor, source: Tensor | None) -> bool:
    return source is not None and source.shape in (parameter.shape, parameter.shape[1:])
