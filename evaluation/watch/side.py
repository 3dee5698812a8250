"""One side of a session: an agent, its environments, and how it plays."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from agents import Agent
from envs import BUTTON_COMBOS, ProcgenVecEnv, environment_problems
from envs.levels import MAX_LEVEL
from envs.native import ACTION_NAMES, NO_OP
from evaluation.inspection import InspectedPlayer, Moment, StepView
from evaluation.intervention import Intervention, policy_under, unsupported
from evaluation.loading import TrainingInfo, task_numbers
from evaluation.play import native_mode
from evaluation.watch.history import FrameRecord, Numbers, SideMoment, Tally
from policies import name_of

MAX_GAMES = 16
NUM_THREADS = 0
"""Native threads that step the games of a side: without rendering, it is not worth waking any."""

LEAVE_IT = -1
"""In place of an action: the policy chooses."""


@dataclass(frozen=True)
class WatchedAgent:
    """An agent that is watched, and how it plays.

    Attributes:
        agent: It is left as it was.
        name: Its name for people, such as the path of its checkpoint.
        greedy: Whether it takes the most likely action instead of drawing one.
        checkpoints: All of its run, by steps of training; none where there is no run.
    """

    agent: Agent
    name: str
    training: TrainingInfo
    greedy: bool = True
    intervention: Intervention = field(default_factory=Intervention)
    checkpoints: Mapping[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionConfig:
    """What is played.

    Attributes:
        split: The levels that are drawn from: train, test1, test2, test3, all, or "A:B".
        level: The only level, instead of drawing.
        seed: The seed of levels and actions.
        twist: What is withheld from the agent or asked of it, as for `envs.ProcgenVecEnv`.
    """

    games: tuple[str, ...]
    mode: str = "easy"
    split: str = "test1"
    level: int | None = None
    seed: int = 0
    twist: str | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = environment_problems(
            self.games, max(1, len(self.games)), self.mode, self.split, self.seed, twist=self.twist
        )
        if len(self.games) > MAX_GAMES:
            found.append(f"{len(self.games)} games at once: choose at most {MAX_GAMES}")
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            found.append(f"level {self.level} does not exist: use 0 to {MAX_LEVEL}")
        if self.level is not None and self.mode == "exploration":
            found.append("exploration mode has one level per game: leave the level out")
        return found


class Side:
    """A watched agent at play. For each step, call `view`, `records` and `collect`.

    Args:
        watched: who plays.
        config: what it plays, each game in one environment; sides with equal seeds draw equal actions.
        levels: seeds of the levels to begin with.
        by_hand: the game in which a person chooses the actions, while the policy sees and says what it would do.

    Attributes:
        watched: who plays, and how it plays now.
        player: where it plays; games whose episode has ended are inactive until the next one begins.
    """

    def __init__(
        self, watched: WatchedAgent, config: SessionConfig, levels: Sequence[int], by_hand: int | None = None
    ) -> None:
        self.watched, self._config, self.by_hand = watched, config, by_hand
        env = ProcgenVecEnv(
            config.games,
            len(config.games),
            native_mode(config.mode),
            "all",
            num_threads=NUM_THREADS,
            level_seeds=levels,
            twist=config.twist,
        )
        policy = policy_under(watched.agent, watched.intervention)
        tasks = task_numbers(watched.agent, config.games, config.mode)
        self.player = InspectedPlayer(policy, env, config.seed, watched.greedy, tasks)
        self._tallies = [Tally() for _ in config.games]
        self._records: list[FrameRecord] = []
        self._held = self._tapped = NO_OP
        self._went_back = False

    def hold(self, keys: Collection[str]) -> None:
        """Press these keys in the game that is played by hand, and no others, until told otherwise."""
        self._held = action_of(keys)
        if self._held != NO_OP:
            self._tapped = self._held

    def view(self) -> StepView:
        """Look at the games and start a step."""
        if self.by_hand is None:
            return self.player.view()
        forced = np.full(len(self._config.games), LEAVE_IT)
        # A key that was pressed and let go since the last step counts for one step.
        forced[self.by_hand] = self._tapped if self._held == NO_OP else self._held
        self._tapped = NO_OP
        return self.player.view(forced)

    def exchange(self, watched: WatchedAgent) -> None:
        """Let another agent go on in this one's place, with a fresh memory."""
        policy = policy_under(watched.agent, watched.intervention)
        self.watched = watched
        self.player.policy, self.player.greedy = policy, watched.greedy
        self.player.state = policy.restarted(self.player.state)

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

    def records(self, view: StepView, moment: SideMoment) -> tuple[FrameRecord, ...]:
        """What a step that was started shows of each game; one that is not active keeps its last record.

        Args:
            view: the step.
            moment: where it stood before.
        """
        self._records = [
            self._record(view, game, moment.player) if active else self._records[game]
            for game, active in enumerate(self.player.active)
        ]
        self._went_back = False
        return tuple(self._records)

    def _record(self, view: StepView, game: int, moment: Moment) -> FrameRecord:
        weights = {name: tensor[game] for name, tensor in view.weights.items()}
        return FrameRecord(self._numbers(view, game), view.rgb[game], moment.native(game), weights)

    def moment(self) -> SideMoment:
        """Where it stands, between two steps."""
        return SideMoment(self.player.moment(), tuple(self._tallies), tuple(self._records))

    def go_back(self, moment: SideMoment) -> None:
        """Stand where it stood."""
        self.player.go_back(moment.player)
        self._tallies, self._records = list(moment.tallies), list(moment.records)
        self._went_back = True

    def begin_at(self, moment: SideMoment) -> None:
        """Stand where a side of another session stood."""
        if not len(moment.tallies) == len(moment.records) == len(self._tallies):
            raise ValueError(f"it is not one of {len(self._tallies)} games")
        state = {name: tensor.to(self.player.policy.device) for name, tensor in moment.player.state.items()}
        self.go_back(replace(moment, player=replace(moment.player, state=state)))
        self._went_back = False

    def _numbers(self, view: StepView, game: int) -> Numbers:
        level, tally = int(view.levels[game]), self._tallies[game]
        return {
            "step": int(view.steps[game]),
            "start": bool(view.starts[game]),
            "cut": self._went_back,
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
            "heads": {name: [_short(value) for value in values[game]] for name, values in view.heads.items()},
            "episodes": tally.episodes,
            "mean": tally.mean,
            "last": tally.last,
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
                self._tallies[game] = self._tallies[game].and_one_of(score)
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
            "checkpoints": sorted(watched.checkpoints),
            "by_hand": self.by_hand,
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


def action_of(keys: Collection[str]) -> int:
    """The action that holding these keys means: all of them together, or else the one that was pressed last."""
    held = [combo for combo in BUTTON_COMBOS if set(combo) == set(keys)]
    last = [combo for key in list(keys)[-1:] for combo in BUTTON_COMBOS if combo == (key,)]
    return next((BUTTON_COMBOS.index(combo) for combo in held + last), NO_OP)


def _short(value: Any) -> float | None:
    """A float for JSON with as many digits as a page can show; None for what is not a number."""
    number = float(f"{float(value):.5g}")
    return number if math.isfinite(number) else None
