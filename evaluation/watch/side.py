"""One side of a session: an agent, its environments, and how it plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents import Agent
from common.errors import UserError
from envs import BUTTON_COMBOS, ProcgenVecEnv
from envs.native import ACTION_NAMES
from evaluation.inspection import InspectedPlayer, StepView
from evaluation.intervention import Intervention, policy_under, unsupported, written_weights
from evaluation.loading import TrainingInfo
from evaluation.play import native_mode
from evaluation.watch.history import FrameRecord, Numbers
from evaluation.watch.pictures import FULL, HALF, jpeg
from policies import name_of

NUM_THREADS = 2
"""Native threads that step and render the games of a side."""


@dataclass(frozen=True)
class WatchedAgent:
    """An agent that is watched, and how it plays at first.

    Attributes:
        agent: The agent; it is left as it was.
        name: Its name for people, such as the path of its checkpoint.
        training: What it was trained on.
        greedy: Whether it takes the most likely action instead of drawing one.
        intervention: What happens to its memory.
    """

    agent: Agent
    name: str
    training: TrainingInfo
    greedy: bool = True
    intervention: Intervention = field(default_factory=Intervention)


class Side:
    """A watched agent at play. Call `act`, `records`, `collect` in turn.

    Args:
        watched: who plays.
        games: what it plays, one environment each.
        mode: of the games.
        levels: seeds of the levels to begin with.
        seed: of sampled actions; sides with equal seeds draw equally.
        render: whether frames are rendered at full size; where they are not, there is what the policy sees.
    """

    def __init__(
        self,
        watched: WatchedAgent,
        games: Sequence[str],
        mode: str,
        levels: Sequence[int],
        seed: int,
        render: bool = True,
    ) -> None:
        self._watched, self._games, self._mode = watched, games, mode
        self.intervention = watched.intervention
        policy = policy_under(watched.agent, self.intervention)
        env = ProcgenVecEnv(
            games,
            len(games),
            native_mode(mode),
            "all",
            render_mode="rgb_array" if render else None,
            num_threads=NUM_THREADS,
            level_seeds=levels,
        )
        self.player = InspectedPlayer(policy, env, seed, watched.greedy)
        self._scores: list[list[float]] = [[] for _ in games]
        self._records: list[FrameRecord] = []
        self._view: StepView | None = None

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which games play; in the others the episode has ended and the next one has not begun (N,)."""
        return self.player.active

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

    def intervene(self, intervention: Intervention) -> None:
        """Let the memory behave otherwise from the next step on.

        Raises:
            UserError: this is impossible for this policy.
        """
        reason = unsupported(self.player.policy, self.core)[intervention.kind]
        if reason is not None:
            raise UserError(reason)
        self.player.change_policy(policy_under(self._watched.agent, intervention))
        self.intervention = intervention

    def act(self) -> None:
        """Look at the games, choose actions, start a step."""
        self._view = self.player.view()

    def records(self, full: Sequence[bool]) -> list[FrameRecord]:
        """What the step that was started shows of each game; one that is not active keeps its last record.

        Args:
            full: which games need a picture at full size.
        """
        assert self._view is not None
        self._records = [
            self._record(self._view, game, full[game]) if self.active[game] else self._records[game]
            for game in range(len(self._games))
        ]
        return self._records

    def _record(self, view: StepView, game: int, full: bool) -> FrameRecord:
        size = FULL if full else HALF
        frame = view.frames[game]
        return FrameRecord(
            numbers=self._numbers(view, game),
            rgb=view.rgb[game],
            frame=frame,
            pictures={} if frame is None else {size: jpeg(frame, size)},
            weights={name: tensor[game] for name, tensor in view.weights.items()},
        )

    def _numbers(self, view: StepView, game: int) -> Numbers:
        level, scores = int(view.levels[game]), self._scores[game]
        return {
            "step": int(view.steps[game]),
            "start": bool(view.starts[game]),
            "level": level,
            "kind": self._watched.training.level_kind(self._games[game], self._mode, level),
            "return": float(view.returns[game]),
            "value": _short(view.values[game]),
            "action": int(view.actions[game]),
            "probabilities": [_short(p) for p in view.probabilities[game]],
            "readings": {
                kind.value: {name: _short(values[game]) for name, values in named.items()}
                for kind, named in view.readings.items()
            },
            "episodes": len(scores),
            "mean": float(np.mean(scores)) if scores else None,
            "last": scores[-1] if scores else None,
            # `collect` fills these in.
            "reward": 0.0,
            "ended": False,
        }

    def collect(self) -> None:
        """Finish the step: rewards and ends become part of the records."""
        step = self.player.collect()
        for game in np.flatnonzero(self.active):
            numbers = self._records[game].numbers
            numbers["reward"], numbers["ended"] = float(step.rewards[game]), bool(step.ended[game])
            if step.ended[game]:
                score = step.infos[game]["episode"]["r"]
                self._scores[game].append(score)
                numbers["final"] = score
                numbers["complete"] = step.infos[game]["prev_level_complete"]
        self.player.active = self.active & ~step.ended

    def play_levels(self, games: Sequence[int], levels: Sequence[int], *, after_episode: bool) -> None:
        """Start episodes; see `InspectedPlayer.play_levels`."""
        self.player.play_levels(games, levels, after_episode=after_episode)

    def describe(self) -> dict[str, Any]:
        """Everything the page needs to know about this side, as plain JSON values."""
        policy, agent = self.player.policy, self._watched.agent
        training = self._watched.training
        return {
            "name": self._watched.name,
            "core": self.core,
            "algorithm": agent.algorithm,
            "trained_steps": agent.num_timesteps,
            "training": {"games": list(training.games), "mode": training.mode, "levels": training.levels},
            "greedy": self.greedy,
            "intervention": {"kind": self.intervention.kind, "span": self.intervention.span},
            "trained_reset": agent.policy.config.reset,
            "unsupported": unsupported(policy, self.core),
            "weights": [
                {
                    "name": name,
                    "heads": tensor.shape[1],
                    "rows": tensor.shape[2],
                    "columns": tensor.shape[3],
                    "blocks": column_blocks(name, tensor),
                }
                for name, tensor in written_weights(policy, self.player.state).items()
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
