"""What there is to know about an agent beside its score, and copies of its policy with another reset rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from agents import Agent
from agents.spaces import image_and_actions
from common.errors import UserError
from envs import Levels, parse_levels
from envs.native import IMAGE_SHAPE, NUM_ACTIONS
from policies import Policy, name_of


@dataclass(frozen=True)
class AgentInfo:
    """An agent, as the caption of its scores describes it.

    Attributes:
        policy: The name of its core.
        algorithm: The algorithm that trained it.
        steps: Environment steps of training.
        recurrent: Whether its policy remembers anything.
        reset: Reset rule of its training: "episode", "never" or a number of steps.
        gradient_horizon: Steps that gradient flowed through in training.
        rollout_steps: Steps of each environment in a rollout of its training, the longest possible horizon.
        training_levels: Levels it was trained on, where known.
    """

    policy: str
    algorithm: str
    steps: int
    recurrent: bool
    reset: str
    gradient_horizon: int
    rollout_steps: int
    training_levels: Levels | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        levels = self.training_levels.name if self.training_levels is not None else None
        return {**asdict(self), "training_levels": levels}


def agent_info(agent: Agent, mode: str) -> AgentInfo:
    """What there is to know about `agent`, which is about to play in `mode`."""
    config = agent.policy.config
    length = agent.config.rollout_steps
    return AgentInfo(
        policy=name_of(config.core),
        algorithm=agent.algorithm,
        steps=agent.num_timesteps,
        recurrent=agent.policy.is_recurrent,
        reset=config.reset,
        gradient_horizon=length if config.bptt_span is None else min(length, config.bptt_span),
        rollout_steps=length,
        training_levels=_training_levels(agent, mode),
    )


def _training_levels(agent: Agent, mode: str) -> Levels | None:
    """Levels of the experiment, if it was in `mode`: in another one, level seeds mean other levels."""
    levels = agent.experiment.get("levels")
    if not isinstance(levels, str) or agent.experiment.get("mode") != mode:
        return None
    try:
        return parse_levels(levels, mode)
    except UserError:
        return None


def agent_problems(agent: Agent) -> list[str]:
    """One line if `agent` is for other observations or actions than those of ProcGen."""
    shape, num_actions = image_and_actions(agent.observation_space, agent.action_space)
    if (shape, num_actions) == (IMAGE_SHAPE, NUM_ACTIONS):
        return []
    size = " x ".join(map(str, shape))
    return [f"this agent does not play ProcGen: it sees {size} images and has {num_actions} actions"]


def policy_with_reset(agent: Agent, reset: str | None) -> Policy:
    """The agent's policy, or for a reset rule other than its own a copy that follows this rule."""
    if reset is None or reset == agent.policy.config.reset:
        return agent.policy
    return policy_copy(agent, reset)


def policy_copy(agent: Agent, reset: str) -> Policy:
    """A copy of the agent's policy that follows a reset rule."""
    policy = agent.policy
    shape, num_actions = image_and_actions(agent.observation_space, agent.action_space)
    with torch.random.fork_rng(devices=[]):  # the copy's first weights must not use up training's randomness
        copy = Policy(replace(policy.config, reset=reset), shape, num_actions)
    copy.load_state_dict(policy.state_dict())
    return copy.to(policy.device)
