"""One side of a session: an agent, its environments, and how it is told to play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import Agent
from common.errors import UserError
from envs import BUTTON_COMBOS, ProcgenVecEnv
from envs.native import ACTION_NAMES
from evaluation.level_order import kind_of_level
from evaluation.intervention import Modification, modified_policy, refusals, weights_in
from evaluation.inspection import Outcome, Player, Sight
from evaluation.loading import Training
from evaluation.watch.history import Moment, Numbers
from evaluation.watch.pictures import FULL, HALF, jpeg
from policies import name_of

NUM_THREADS = 2
"""Native threads that step and render the games of a side."""


@dataclass(frozen=True)
class Contestant:
    """An agent that is watched, and how it plays at first.

    Attributes:
        agent: it is left as it was.
        name: for people, such as the path of its checkpoint.
        training: what it was trained on.
        greedy: take the most likely action instead of drawing one.
        modification: what happens to its memory.
    """

    agent: Agent
    name: str
    training: Training
    greedy: bool = True
    modification: Modification = Modification()  # noqa: RUF009 (it is frozen)


class Side:
    """A contestant at play. Call `decide`, `moments`, `collect` in turn.

    Args:
        contestant: who plays.
        games: one slot each.
        mode: of the games.
        levels: seeds of the levels to begin with.
        seed: of sampled actions; sides with equal seeds draw equally.
        render: whether frames are rendered at full size; where they are not, there is what the policy sees.

    Attributes:
        finished: slots whose episode has ended and whose next one has not begun (N,).
    """

    def __init__(
        self,
        contestant: Contestant,
        games: Sequence[str],
        mode: str,
        levels: Sequence[int],
        seed: int,
        render: bool = True,
    ) -> None:
        self._contestant, self._games, self._mode = contestant, games, mode
        agent = contestant.agent
        env = ProcgenVecEnv(
            games,
            len(games),
            # Exploration mode is hard mode on fixed levels, and only there can single slots be restarted.
            "hard" if mode == "exploration" else mode,
            "all",
            render_mode="rgb_array" if render else None,
            num_threads=NUM_THREADS,
            level_seeds=levels,
        )
        self.modification = contestant.modification
        policy = modified_policy(agent, self.modification)
        generator = torch.Generator(agent.device).manual_seed(seed)
        self.player = Player(policy, env, generator, contestant.greedy)
        self.finished: NDArray[np.bool_] = np.zeros(len(games), dtype=bool)
        self._scores: list[list[float]] = [[] for _ in games]
        self._moments: list[Moment] = []
        self._sight: Sight | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely actions are taken."""
        return self.player.greedy

    @greedy.setter
    def greedy(self, greedy: bool) -> None:
        self.player.greedy = greedy

    @property
    def core(self) -> str:
        """Name of the policy's core."""
        return name_of(self.player.policy.config.core)

    def modify(self, modification: Modification) -> None:
        """Let the memory behave otherwise from the next step on.

        Raises:
            UserError: this policy cannot.
        """
        reason = refusals(self.player.policy, self.core)[modification.kind]
        if reason is not None:
            raise UserError(reason)
        self.player.change_policy(modified_policy(self._contestant.agent, modification))
        self.modification = modification

    def decide(self) -> Sight:
        """Look at the games, choose actions, start a step."""
        self._sight = self.player.decide(waiting=self.finished)
        return self._sight

    def moments(self, full: Sequence[bool]) -> list[Moment]:
        """What the latest sight shows of each game; a finished one stays at its last moment.

        Args:
            full: which games need a picture at full size.
        """
        assert self._sight is not None
        self._moments = [
            self._moments[slot] if self.finished[slot] else self._moment(self._sight, slot, full[slot])
            for slot in range(len(self._games))
        ]
        return self._moments

    def _moment(self, sight: Sight, slot: int, full: bool) -> Moment:
        size = FULL if full else HALF
        frame = sight.frames[slot] if sight.frames else None
        return Moment(
            numbers=self._numbers(sight, slot),
            rgb=sight.rgb[slot],
            frame=frame,
            pictures={} if frame is None else {size: jpeg(frame, size)},
            weights={name: tensor[slot] for name, tensor in sight.weights.items()},
        )

    def _numbers(self, sight: Sight, slot: int) -> Numbers:
        level, scores = int(sight.levels[slot]), self._scores[slot]
        return {
            "step": int(sight.steps[slot]),
            "start": bool(sight.starts[slot]),
            "level": level,
            "kind": kind_of_level(self._contestant.training, self._games[slot], self._mode, level),
            "return": float(sight.returns[slot]),
            "value": _short(sight.values[slot]),
            "action": int(sight.actions[slot]),
            "probabilities": [_short(p) for p in sight.probabilities[slot]],
            "facts": {name: _short(values[slot]) for name, values in sight.facts.items()},
            "episodes": len(scores),
            "mean": float(np.mean(scores)) if scores else None,
            "last": scores[-1] if scores else None,
            # `collect` fills these in.
            "reward": 0.0,
            "ended": False,
        }

    def collect(self) -> Outcome:
        """Finish the step: rewards and ends become part of the moments."""
        assert self._sight is not None
        outcome = self.player.collect()
        for slot in np.flatnonzero(~self.finished):
            numbers = self._moments[slot].numbers
            numbers["reward"], numbers["ended"] = (
                float(outcome.rewards[slot]),
                bool(outcome.ended[slot]),
            )
            if outcome.ended[slot]:
                score = outcome.infos[slot]["episode"]["r"]
                self._scores[slot].append(score)
                numbers["final"] = score
                numbers["complete"] = outcome.infos[slot]["prev_level_complete"]
        self.finished |= outcome.ended
        return outcome

    def play_levels(self, slots: Sequence[int], levels: Sequence[int], *, after_episode: bool) -> None:
        """Start episodes; see `Player.play_levels`."""
        self.player.play_levels(slots, levels, after_episode=after_episode)
        self.finished[list(slots)] = False

    def describe(self) -> dict[str, Any]:
        """Everything the page needs to know about this side, as plain JSON values."""
        policy, agent = self.player.policy, self._contestant.agent
        training = self._contestant.training
        return {
            "name": self._contestant.name,
            "core": self.core,
            "algorithm": agent.algorithm,
            "trained_steps": agent.num_timesteps,
            "training": {"games": list(training.games), "mode": training.mode, "levels": training.levels},
            "greedy": self.greedy,
            "modification": {"kind": self.modification.kind, "span": self.modification.span},
            "trained_reset": agent.policy.config.reset,
            "refusals": refusals(policy, self.core),
            "weights": [
                {
                    "name": name,
                    "heads": tensor.shape[1],
                    "rows": tensor.shape[2],
                    "columns": tensor.shape[3],
                    "blocks": column_blocks(name, tensor),
                }
                for name, tensor in weights_in(policy, self.player.state).items()
            ],
        }

    def close(self) -> None:
        """Free the environments."""
        self.player.env.close()


def column_blocks(name: str, weights: Tensor) -> list[tuple[str, int]]:
    """What the columns of a matrix (..., rows, columns) are for, as labels and widths.

    SRWM's matrix makes output, query, key and four rates out of its input (`policies.ops.srwm`); one of fast weights
    has outputs alone.
    """
    rows, columns = weights.shape[-2:]
    outputs = columns - 2 * rows - 4
    if name.endswith("/shift") and outputs > 0:
        return [("y", outputs), ("q", rows), ("k", rows), ("β", 4)]
    return [("y", columns)]


def action_labels() -> list[dict[str, Any]]:
    """Name and keys of each action."""
    return [
        {"name": name, "keys": list(keys)} for name, keys in zip(ACTION_NAMES, BUTTON_COMBOS, strict=True)
    ]


def _short(value: Any) -> float:
    """A float for JSON with as many digits as a page can show."""
    return float(f"{float(value):.5g}")
