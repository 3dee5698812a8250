"""What there is to know about an agent beside its score, and copies of its policy with another reset rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from agents import Agent
from agents.spaces import image_and_actions
from envs import Levels
from evaluation.loading import TrainingInfo, training_info
from policies import Policy, name_of


@dataclass(frozen=True)
class AgentInfo:
    """An agent, as the caption of its scores describes it.

    Attributes:
        policy: The name of its core.
        steps: Environment steps of training.
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
    training_levels: str | None

    def memory_text(self, reset: str | None) -> str:
        """In words: reset rules of an evaluation (`reset`; None: as trained) and of training, gradient horizon."""
        if not self.recurrent:
            return "no memory"
        text = f"memory reset {reset_text(reset or self.reset)}"
        if reset not in (None, self.reset):
            text += f" in evaluation, {reset_text(self.reset)} in training"
        return f"{text}, gradient horizon {self.horizon_text}"

    @property
    def horizon_text(self) -> str:
        """The gradient horizon in words."""
        return f"{self.gradient_horizon} of {self.rollout_steps} steps"


def reset_text(rule: str) -> str:
    """A reset rule in words.

    >>> reset_text("50")
    'every 50 steps'
    """
    return {"episode": "at each episode's start", "never": "never"}.get(rule, f"every {rule} steps")


def familiarity(levels: Levels, training: Levels) -> str:
    """Whether training on some levels has shown others: "trained on", "unseen" or "partly unseen"."""
    end, training_end = (each.start + each.count if each.count else math.inf for each in (levels, training))
    if training.start <= levels.start and end <= training_end:
        return "trained on"
    return "unseen" if end <= training.start or training_end <= levels.start else "partly unseen"


def agent_info(agent: Agent, mode: str) -> AgentInfo:
    """What there is to know about `agent`, which is about to play in `mode`."""
    config = agent.policy.config
    length = agent.config.rollout_steps
    training = training_info(agent)
    return AgentInfo(
        policy=name_of(config.core),
        algorithm=agent.algorithm,
        steps=agent.num_timesteps,
        recurrent=agent.policy.is_recurrent,
        reset=config.reset,
        gradient_horizon=min(agent.config.horizon, config.bptt_span or length),
        rollout_steps=length,
        # In another mode, level seeds mean other levels.
        training_levels=_training_levels(training, mode),
    )


def _training_levels(training: TrainingInfo, mode: str) -> str | None:
    """The levels that all games were trained on in `mode`; None where that is not known, or differs."""
    kinds = {(task.mode, task.levels) for task in training.tasks}
    return next(iter(kinds))[1] if len(kinds) == 1 and next(iter(kinds))[0] == mode else None


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
