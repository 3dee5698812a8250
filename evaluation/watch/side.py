"""One side of a session: an agent, its environments, and how it plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from agents import Agent
from envs import BUTTON_COMBOS, ProcgenVecEnv, environment_problems
from envs.levels import MAX_LEVEL
from envs.native import ACTION_NAMES
from evaluation.inspection import InspectedPlayer, StepView
from evaluation.intervention import Intervention, policy_under, unsupported
from evaluation.loading import TrainingInfo, task_numbers
from evaluation.play import native_mode
from evaluation.watch.history import FULL, HALF, FrameRecord, Numbers
from policies import name_of

MAX_GAMES = 16
NUM_THREADS = 2
"""Native threads that step and render the games of a side."""


@dataclass(frozen=True)
class WatchedAgent:
    """An agent that is watched, and how it plays.

    Attributes:
        agent: It is left as it was.
        name: Its name for people, such as the path of its checkpoint.
        greedy: Whether it takes the most likely action instead of drawing one.
    """

    agent: Agent
    name: str
    training: TrainingInfo
    greedy: bool = True
    intervention: Intervention = field(default_factory=Intervention)


@dataclass(frozen=True)
class SessionConfig:
    """What is played.

    Attributes:
        split: The levels that are drawn from: train, test1, test2, test3, all, or "A:B".
        level: The only level, instead of drawing.
        seed: The seed of levels and actions.
        blank: The frames that are black to the agent, as for `envs.ProcgenVecEnv`.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    split: str = "test1"
    level: int | None = None
    seed: int = 0
    blank: str | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = environment_problems(
            self.games, max(1, len(self.games)), self.mode, self.split, self.seed, blank=self.blank
        )
        if len(self.games) > MAX_GAMES:
            found.append(f"{len(self.games)} games at once: choose at most {MAX_GAMES}")
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            found.append(f"level {self.level} does not exist: use 0 to {MAX_LEVEL}")
        if self.level is not None and self.mode == "exploration":
            found.append("exploration mode has one level per game: leave the level out")
        return found


class Side:
    """A watched agent at play. For each step, call `player.view`, `records` and `collect`.

    Args:
        watched: who plays.
        config: what it plays, each game in one environment; sides with equal seeds draw equal actions.
        levels: seeds of the levels to begin with.
        render: whether frames are rendered at full size; where they are not, there is what the policy sees.

    Attributes:
        watched: who plays, and how it plays now.
        player: where it plays; games whose episode has ended are inactive until the next one begins.
    """

    def __init__(
        self, watched: WatchedAgent, config: SessionConfig, levels: Sequence[int], render: bool
    ) -> None:
        self.watched, self._config = watched, config
        env = ProcgenVecEnv(
            config.games,
            len(config.games),
            native_mode(config.mode),
            "all",
            render_mode="rgb_array" if render else None,
            num_threads=NUM_THREADS,
            level_seeds=levels,
            blank=config.blank,
        )
        policy = policy_under(watched.agent, watched.intervention)
        tasks = task_numbers(watched.agent, config.games, config.mode)
        self.player = InspectedPlayer(policy, env, config.seed, watched.greedy, tasks)
        self._scores: list[list[float]] = [[] for _ in config.games]
        self._records: list[FrameRecord] = []

    def choose_actions(self, greedy: bool) -> None:
        """Take the most likely actions from the next step on, or draw them."""
        self.watched = replace(self.watched, greedy=greedy)
        self.player.greedy = greedy

    def intervene(self, intervention: Intervention) -> None:
        """Let the memory behave otherwise from the next step on.

        Raises:
            UserError: this is impossible for this policy.
        """
        self.player.change_policy(policy_under(self.watched.agent, intervention))
        self.watched = replace(self.watched, intervention=intervention)

    def records(self, view: StepView, full: Sequence[bool]) -> tuple[FrameRecord, ...]:
        """What a step that was started shows of each game; one that is not active keeps its last record.

        Args:
            view: the step.
            full: which games need a picture at full size.
        """
        self._records = [
            self._record(view, game, full[game]) if active else self._records[game]
            for game, active in enumerate(self.player.active)
        ]
        return tuple(self._records)

    def _record(self, view: StepView, game: int, full: bool) -> FrameRecord:
        weights = {name: tensor[game] for name, tensor in view.weights.items()}
        record = FrameRecord(self._numbers(view, game), view.rgb[game], view.frames[game], weights)
        if record.frame is not None:
            record.picture(FULL if full else HALF)
        return record

    def _numbers(self, view: StepView, game: int) -> Numbers:
        level, scores = int(view.levels[game]), self._scores[game]
        return {
            "step": int(view.steps[game]),
            "start": bool(view.starts[game]),
            "level": level,
            "kind": self.watched.training.level_kind(self._config.games[game], self._config.mode, level),
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
        for game in np.flatnonzero(self.player.active):
            numbers = self._records[game].numbers
            numbers["reward"], numbers["ended"] = float(step.rewards[game]), bool(step.ended[game])
            if step.ended[game]:
                score = step.infos[game]["episode"]["r"]
                self._scores[game].append(score)
                numbers["final"] = score
                numbers["complete"] = step.infos[game]["prev_level_complete"]
        self.player.active &= ~step.ended

    def describe(self) -> dict[str, Any]:
        """Everything the page needs to know about this side, as plain JSON values."""
        watched, policy = self.watched, self.player.policy
        return {
            "name": watched.name,
            "core": name_of(policy.config.core),
            "algorithm": watched.agent.algorithm,
            "trained_steps": watched.agent.num_timesteps,
            "greedy": watched.greedy,
            "intervention": asdict(watched.intervention),
            "unsupported": unsupported(policy),
            "weights": [
                {
                    "name": name,
                    "heads": tensor.shape[1],
                    "rows": tensor.shape[2],
                    "columns": tensor.shape[3],
                    "blocks": column_blocks(name, tensor),
                }
                for name, tensor in policy.core.written_weights(self.player.state).items()
            ],
        }


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
