"""A policy at play, with everything that there is to see at each step."""

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
from evaluation.play import Player, Step
from policies import Kind, Policy, PolicyOutput, Reading, State

Numbers = NDArray[Any]


@dataclass(frozen=True)
class StepView:
    """What N games show at one step, and what the policy makes of it.

    A view belongs to the observation that the policy sees, to the value that it gives to it and to the action that it
    answers with; step and return are those before this action, weights those after what the step wrote. Of a game that
    is not active, it shows the last step at which it was.

    Attributes:
        rgb: what the policy sees, uint8 (N, 64, 64, 3).
        frames: the same at full size, N of (512, 512, 3); None where nothing is rendered.
        levels: seeds of the levels (N,).
        steps, returns: of the episode so far (N,).
        starts: whether the episode starts here (N,).
        values, actions: the policy's (N,).
        probabilities: of the actions (N, 15).
        readings: by kind and name, what the core says of each game (N,): norms such as "layer0/shift_norm", rates such
            as "layer0/rate_y", and what the step wrote, such as "layer0/shift_written".
        heads: by name, those of which each head has its own (N, H), where `readings` are their means.
        weights: W_t - W_0 by name such as "layer0/shift" (N, heads, rows, columns).
    """

    rgb: NDArray[np.uint8]
    frames: Sequence[NDArray[np.uint8] | None]
    levels: Numbers
    steps: Numbers
    returns: Numbers
    starts: NDArray[np.bool_]
    values: Numbers
    probabilities: Numbers
    actions: Numbers
    readings: dict[Kind, dict[str, Numbers]]
    heads: dict[str, Numbers]
    weights: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Moment:
    """Where an `InspectedPlayer` stands between two steps: everything that decides how it goes on.

    Attributes:
        env: State of the environments, as `ProcgenVecEnv.get_state` gives it.
        state: What the policy remembers.
        rewards: The previous rewards that the policy sees next (N, 1).
        active, starts, returns, steps: Of each game (N,).
        draws: State of the generator that actions are drawn with.
    """

    env: dict[str, Any]
    state: State
    rewards: Numbers
    active: NDArray[np.bool_]
    starts: NDArray[np.bool_]
    returns: Numbers
    steps: Numbers
    draws: Tensor

    def native(self, game: int) -> NDArray[np.uint8]:
        """The native state of one game."""
        ends = np.cumsum(self.env["native_sizes"])
        blob: NDArray[np.uint8] = self.env["native"]
        return blob[ends[game] - self.env["native_sizes"][game] : ends[game]]


class InspectedPlayer(Player):
    """Plays one ProcGen environment step by step and shows each step: `view`, then `collect`.

    Args:
        policy: plays; it may be exchanged in between, see `change_policy`.
        env: N games; it is reset.
        seed: of sampled actions.
        greedy: take the most likely action instead of drawing one.
        tasks: as for `Player`.

    Attributes:
        greedy: may be changed at any time.
    """

    def __init__(
        self,
        policy: Policy,
        env: ProcgenVecEnv,
        seed: int = 0,
        greedy: bool = True,
        tasks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(policy, [env], [self._choose_action], tasks)
        self.env, self.greedy = env, greedy
        self._generator = torch.Generator(policy.device).manual_seed(seed)
        self._returns = np.zeros(env.num_envs)
        self._steps = np.zeros(env.num_envs, dtype=np.int64)
        self._shown: dict[str, Numbers] = {}
        self._readings: dict[Kind, dict[str, Numbers]] = {kind: {} for kind in Kind}
        self._heads: dict[str, Numbers] = {}
        self._frames: Sequence[NDArray[np.uint8] | None] = [None] * env.num_envs

    def _choose_action(self, logits: Tensor) -> Tensor:
        return greedy(logits) if self.greedy else sample(logits, self._generator)

    def change_policy(self, policy: Policy) -> None:
        """Go on with a copy of the policy that has another reset rule, and the same memory.

        A rule that counts steps starts to count, and so clears before the next step.
        """
        self.state = {**policy.restarted(self.state), **policy.core.memory(self.state)}
        self.policy = policy

    def moment(self) -> Moment:
        """Where it stands, between two steps. Nothing in it is written again."""
        return Moment(
            env=self.env.get_state(),
            state=self.state,
            rewards=self._observations[0]["reward"].copy(),
            active=self.active.copy(),
            starts=self.starts.copy(),
            returns=self._returns.copy(),
            steps=self._steps.copy(),
            draws=self._generator.get_state(),
        )

    def go_back(self, moment: Moment) -> None:
        """Stand where `moment` stood; with the same policy, everything goes on as it went then.

        A policy with another reset rule goes on with the same memory, as in `change_policy`.
        """
        self._observations[0] = {**self.env.set_state(dict(moment.env)), "reward": moment.rewards}
        fresh = self.policy.restarted(moment.state)
        same_rule = fresh.keys() == moment.state.keys()
        self.state = moment.state if same_rule else {**fresh, **self.policy.core.memory(moment.state)}
        self.active, self.starts = moment.active.copy(), moment.starts.copy()
        self._returns, self._steps = moment.returns.copy(), moment.steps.copy()
        self._generator.set_state(moment.draws)

    def view(self, forced: NDArray[np.int64] | None = None) -> StepView:
        """Look at the games, choose actions and start a step; `forced` as for `act`."""
        images = zip(self.active, self.env.get_images(), self._frames, strict=True)
        self._frames = [new if active else old for active, new, old in images]
        self._show(
            self._shown,
            rgb=self._seen("rgb"),
            levels=np.array(self.env.current_levels)[self.active],
            steps=self._steps[self.active],
            returns=self._returns[self.active],
            starts=self.starts[self.active],
        )
        self.act(forced)
        self._show(self._shown, actions=self._actions[self.active])
        readings = {kind: dict(named) for kind, named in self._readings.items()}
        written = self.policy.core.written_weights(self.state)
        weights = {name: tensor.cpu() for name, tensor in written.items()}
        return StepView(
            **self._shown, frames=self._frames, readings=readings, heads=dict(self._heads), weights=weights
        )

    def _show(self, shown: dict[str, Numbers], **values: Numbers) -> None:
        """Show new values of the active games, and of the others the last ones."""
        for name, part in values.items():
            old = shown.get(name)
            whole = np.zeros((self.num_envs, *part.shape[1:]), part.dtype) if old is None else old.copy()
            whole[self.active] = part
            shown[name] = whole

    def _run_policy(self, rgb: Tensor, reward: Tensor, state: State, starts: Tensor) -> PolicyOutput:
        output, readings = self.policy.examine(rgb, reward, state, starts)
        for name, norms in write_norms(self.policy, state, output.state, starts[0]).items():
            readings.append(Reading(f"{name}_written", Kind.WRITTEN, norms))
        for reading in readings:
            self._show(self._readings[reading.kind], **{reading.tag: reading.values.cpu().numpy()})
            if reading.heads is not None:
                self._show(self._heads, **{reading.tag: reading.heads.cpu().numpy()})
        self._show(
            self._shown,
            values=output.value[0].cpu().numpy(),
            probabilities=output.logits[0].softmax(-1).cpu().numpy(),
        )
        return output

    def collect(self) -> Step:
        """Finish the step that `view` started."""
        step = super().collect()
        self._returns = (self._returns + step.rewards) * ~step.ended
        self._steps = (self._steps + self.active) * ~step.ended
        return step

    def play_levels(self, envs: Sequence[int], levels: Sequence[int], *, after_episode: bool) -> None:
        """Start episodes on levels of one's choice.

        Args:
            envs: games that play them.
            levels: seeds, one for each.
            after_episode: whether the games have just ended an episode, whose last reward the policy then sees at the
                first step of the new one, as in training; otherwise it sees 0.
        """
        rewards = self._observations[0]["reward"]
        self._observations[0] = self.env.play_levels(envs, levels)
        if after_episode:
            self._observations[0]["reward"] = rewards
        self._returns[list(envs)] = 0
        self._steps[list(envs)] = 0
        self.starts[list(envs)] = True
        self.active[list(envs)] = True


@torch.no_grad()
def write_norms(policy: Policy, before: State, after: State, starts: Tensor) -> dict[str, Tensor]:
    """How much one step has written: the Frobenius norm of W_t - W_{t-1}, all heads together, by name (B,).

    Args:
        policy: that made the step.
        before, after: its states.
        starts: where the step was the first of an episode (B,).
    """
    cleared, _ = policy.core.reset_rule.mask(before, starts.unsqueeze(0))
    norms = {}
    for name, old in policy.core.written_weights(before).items():
        kept = torch.where(cleared[0, :, None, None, None], 0.0, old)
        norms[name] = (after[name] - kept).flatten(1).norm(dim=1)
    return norms


def layer_of(name: str) -> str:
    """The layer that a reading or a matrix belongs to: "layer0" for "layer0/shift_norm"."""
    return name.partition("/")[0]
