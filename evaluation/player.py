"""A policy at play in some environments, step by step, with everything there is to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.acting import greedy, sample
from envs import ProcgenVecEnv
from evaluation.modification import carried_state, weights_in, write_norms
from policies import Policy

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Sight:
    """What N games show at one step, and what the policy makes of it.

    A sight belongs to the observation that the policy sees, to the value that it gives to it and to the action that it
    answers with; step and return are those before this action, weights those after what the step wrote.

    Attributes:
        rgb: what the policy sees, uint8 (N, 64, 64, 3).
        frames: the same at full size, N of (512, 512, 3); none where nothing is rendered.
        levels: seeds of the levels (N,).
        steps, returns: of the episode so far (N,).
        starts: whether the episode starts here (N,).
        values: the policy's estimates (N,).
        probabilities: of the actions (N, 15).
        actions: chosen (N,).
        facts: what the core says of each game (N,), such as "layer0/shift_norm" and "layer0/rate_y", and
            "layer0/shift_written", the norm of what the step wrote.
        weights: W_t - W_0 by name (N, heads, rows, columns); see `weights_in`.
    """

    rgb: NDArray[np.uint8]
    frames: Sequence[NDArray[np.uint8]]
    levels: Numbers
    steps: Numbers
    returns: Numbers
    starts: NDArray[np.bool_]
    values: Numbers
    probabilities: Numbers
    actions: Numbers
    facts: dict[str, Numbers]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What the actions of a sight led to.

    Attributes:
        rewards: raw (N,).
        ended: whether the episode ended (N,).
        infos: of the environment, as `envs.ProcgenVecEnv` describes ended episodes.
    """

    rewards: Numbers
    ended: NDArray[np.bool_]
    infos: list[dict[str, Any]]


class Player:
    """Plays on: `decide` looks, chooses actions and starts a step; `collect` finishes it.

    Args:
        policy: plays; it may be exchanged in between, see `change_policy`.
        env: N slots, which are reset.
        generator: of sampled actions, on the policy's device.
        greedy: take the most likely action instead of drawing one.

    Attributes:
        greedy: may be changed at any time.
        state: the policy's, after the last sight.
    """

    def __init__(
        self, policy: Policy, env: ProcgenVecEnv, generator: torch.Generator, greedy: bool = True
    ) -> None:
        self.env, self.greedy = env, greedy
        self._policy, self._generator = policy, generator
        self.state = policy.initial_state(env.num_envs)
        self._observation = env.reset()
        self._starts = np.ones(env.num_envs, dtype=bool)
        self._waiting = np.zeros(env.num_envs, dtype=bool)
        self._returns = np.zeros(env.num_envs)
        self._steps = np.zeros(env.num_envs, dtype=np.int64)

    @property
    def policy(self) -> Policy:
        """That plays now."""
        return self._policy

    def change_policy(self, policy: Policy) -> None:
        """Go on with a copy of the policy that has another reset rule, and the same memory."""
        self.state = carried_state(self.state, policy)
        self._policy = policy

    @torch.inference_mode(False)
    @torch.no_grad()
    def decide(
        self, waiting: NDArray[np.bool_] | None = None, forced: NDArray[np.int64] | None = None
    ) -> Sight:
        """Look at all games, choose actions and start a step.

        Args:
            waiting: slots (N,) whose episode has ended and whose next one shall begin later, with `play_levels`: their
                memory and their last reward stay as they are, and what the sight says of them means nothing.
            forced: actions (N,) to take instead of the policy's.
        """
        frames = [frame for frame in self.env.get_images() if frame is not None]
        levels = np.array(self.env.current_levels)
        device = self._policy.device
        rgb = torch.as_tensor(self._observation["rgb"], device=device).unsqueeze(0)
        reward = torch.as_tensor(self._observation["reward"], device=device).unsqueeze(0)
        starts = torch.as_tensor(self._starts, device=device)
        before = self.state
        output, readings = self._policy.examine(rgb, reward, before, starts.unsqueeze(0))
        after = output.state
        facts = {reading.tag: reading.values for reading in readings} | {
            f"{name}_written": norm for name, norm in write_norms(self._policy, before, after, starts).items()
        }
        if waiting is not None:
            self._waiting = waiting.copy()
        if self._waiting.any():
            rows = torch.as_tensor(self._waiting, device=device)
            after = {
                name: torch.where(rows.reshape(-1, *[1] * (tensor.dim() - 1)), before[name], tensor)
                for name, tensor in after.items()
            }
        self.state = after
        logits = output.logits[0]
        chosen = greedy(logits) if self.greedy else sample(logits, self._generator)
        actions = chosen.cpu().numpy() if forced is None else forced
        sight = Sight(
            rgb=self._observation["rgb"],
            frames=frames,
            levels=levels,
            steps=self._steps.copy(),
            returns=self._returns.copy(),
            starts=self._starts.copy(),
            values=output.value[0].cpu().numpy(),
            probabilities=logits.softmax(-1).cpu().numpy(),
            actions=actions,
            facts={name: values.cpu().numpy() for name, values in facts.items()},
            weights={name: tensor.cpu() for name, tensor in weights_in(self._policy, after).items()},
        )
        self.env.step_async(actions)
        return sight

    def collect(self) -> Outcome:
        """Finish the step that `decide` started."""
        observation, rewards, ended, infos = self.env.step_wait()
        observation["reward"][self._waiting] = self._observation["reward"][self._waiting]
        self._observation, self._starts = observation, ended
        self._returns = (self._returns + rewards) * ~ended
        self._steps = (self._steps + 1) * ~ended
        return Outcome(rewards, ended, infos)

    def play_levels(self, slots: Sequence[int], levels: Sequence[int], *, after_episode: bool) -> None:
        """Start episodes on levels of one's choice.

        Args:
            slots: where.
            levels: seeds, one for each.
            after_episode: whether the slots have just ended an episode, whose last reward the policy then sees at the
                first step of the new one, as in training; otherwise it sees 0.
        """
        rewards = self._observation["reward"]
        observation = self.env.play_levels(slots, levels)
        if after_episode:
            observation["reward"] = rewards
        self._observation = observation
        self._returns[list(slots)] = 0
        self._steps[list(slots)] = 0
        self._starts[list(slots)] = True
