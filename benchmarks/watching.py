"""What watching costs: six games with the full display, against bare environments and policy, and against real time.

    python -m benchmarks.watching [--json FILE]

An untrained SRWM of the paper's size. What the browser itself needs is not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from agents import IMPALA, Actor, Agent
from benchmarks.figures import Figure, Part, best_seconds, main
from envs import TASK_SETS, ProcgenVecEnv
from evaluation.loading import TrainingInfo
from evaluation.watch.session import DEFAULT_SPEED, Session
from evaluation.watch.side import NUM_THREADS, SessionConfig, WatchedAgent
from evaluation.watch.viewer import Viewer, Wanted

GAMES = TASK_SETS["easy6"]
STEPS = 30
"""Of each repetition."""


def bare_steps(agent: Agent, env: ProcgenVecEnv) -> Callable[[], None]:
    """Plays `STEPS` steps with the policy and nothing else."""
    actor = Actor(agent.policy, env.num_envs, agent.device, torch.Generator(agent.device).manual_seed(0))
    observation: Any = env.reset()
    starts = np.ones(env.num_envs, dtype=bool)

    def play() -> None:
        nonlocal observation, starts
        for _ in range(STEPS):
            actions = actor.step(observation, starts).actions.cpu().numpy()
            observation, _, starts, _ = env.step(actions)

    return play


def watched_steps(session: Session, viewer: Viewer, full: bool) -> Callable[[], None]:
    """Plays `STEPS` steps as the page shows them: pictures, numbers and heat maps of all games."""

    def play() -> None:
        session.full = [full] * len(GAMES)
        for _ in range(STEPS):
            session.advance()
            viewer.update(session)

    return play


def parts(quick: bool = False) -> list[Part]:
    """See the module."""
    return [Part("watching: six games", partial(_measure, 2 if quick else 8))]


def _measure(repetitions: int) -> list[Figure]:
    make_env = partial(ProcgenVecEnv, GAMES, len(GAMES), num_threads=NUM_THREADS)
    plain, rendered = make_env(), make_env(render_mode="rgb_array")
    agent = IMPALA("srwm", plain, seed=0, device="cpu")
    session = Session([WatchedAgent(agent, "", TrainingInfo())], SessionConfig(GAMES))
    weights = next(iter(session.sides[0].player.state))
    seconds = best_seconds(
        {
            "bare": bare_steps(agent, plain),
            "rendered": bare_steps(agent, rendered),
            "tiles": watched_steps(session, Viewer(Wanted(weights=weights)), full=False),
            "full": watched_steps(session, Viewer(Wanted(weights=weights, large=True)), full=True),
        },
        repetitions,
    )
    for env in (plain, rendered):
        env.close()
    session.close()
    speed = {name: STEPS / value for name, value in seconds.items()}
    facts = {f"{name} steps/s": value for name, value in speed.items()}
    return [
        Figure(
            "six games, full display",
            f"{DEFAULT_SPEED:g} steps/s",
            speed["tiles"] / DEFAULT_SPEED,
            1.0,
            facts=facts,
        ),
        Figure(
            "six games, full-size pictures", f"{DEFAULT_SPEED:g} steps/s", speed["full"] / DEFAULT_SPEED, 1.0
        ),
        Figure("time of a step, full display", "rendering and policy", speed["rendered"] / speed["tiles"]),
        Figure("time of a step, full display", "policy without rendering", speed["bare"] / speed["tiles"]),
    ]


if __name__ == "__main__":
    sys.exit(main("Watching", parts))
