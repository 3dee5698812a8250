"""What watching costs: six games with the full display, against bare environments and policy, and against real time.

    python -m benchmarks.watching [--json FILE]

An untrained SRWM of the paper's size. Pictures are taken in a second thread, as the server does it. What the browser
itself needs is not in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from agents import IMPALA, Actor, Agent
from benchmarks.figures import Figure, Part, best_seconds, main
from envs import TASK_SETS, ProcgenVecEnv
from evaluation.loading import TrainingInfo
from evaluation.watch.camera import Camera
from evaluation.watch.session import Session
from evaluation.watch.side import SessionConfig, WatchedAgent
from evaluation.watch.viewer import Viewer, Wanted

GAMES = TASK_SETS["easy6"]
STEPS = 30
"""Of each repetition."""
FAST = 30.0
"""Twice ProcGen's human speed."""


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


def watched_steps(session: Session, viewer: Viewer, camera: Camera) -> Callable[[], None]:
    """Plays `STEPS` steps as the page shows them: pictures, numbers and heat maps of what `viewer` sees."""

    def play() -> None:
        with ThreadPoolExecutor(1) as pictures:
            taken: Future[bytes] | None = None
            for _ in range(STEPS):
                session.advance()
                update = viewer.update(session)
                assert update is not None
                if taken is not None:
                    taken.result()
                taken = pictures.submit(update.message, camera)

    return play


def processor_ms(play: Callable[[], None]) -> float:
    """Milliseconds of processor time that a step takes, on all cores together."""
    began = time.process_time()
    play()
    return 1000 * (time.process_time() - began) / STEPS


def parts(quick: bool = False) -> list[Part]:
    """See the module."""
    return [Part("watching: six games", partial(_measure, 2 if quick else 8))]


def _measure(repetitions: int) -> list[Figure]:
    make_env = partial(ProcgenVecEnv, GAMES, len(GAMES), num_threads=0)
    plain, rendered = make_env(), make_env(render_mode="rgb_array")
    agent = IMPALA("srwm", plain, seed=0, device="cpu")
    session = Session([WatchedAgent(agent, "", TrainingInfo())], SessionConfig(GAMES))
    weights = next(iter(session.sides[0].player.state))
    camera = Camera(GAMES, "easy")
    views = {
        "tiles": Wanted(weights=weights),
        "full": Wanted(weights=weights, large=True),
        "one": Wanted(weights=weights, game=0),
        "eye": Wanted(weights=weights, eye=True),
    }
    plays = {
        "bare": bare_steps(agent, plain),
        "rendered": bare_steps(agent, rendered),
        **{name: watched_steps(session, Viewer(wanted), camera) for name, wanted in views.items()},
    }
    seconds = best_seconds(plays, repetitions)
    cost = {f"{name} CPU ms a step": processor_ms(plays[name]) for name in views}
    for env in (plain, rendered):
        env.close()
    camera.close()
    session.close()
    speed = {name: STEPS / value for name, value in seconds.items()}
    facts = {**{f"{name} steps/s": value for name, value in speed.items()}, **cost}
    aim = f"{FAST:g} steps/s"
    return [
        Figure("six games, full display", aim, speed["tiles"] / FAST, 1.0, facts=facts),
        Figure("six games, full-size pictures", aim, speed["full"] / FAST),
        Figure("six games, one of them shown", aim, speed["one"] / FAST),
        Figure("six games, policy's eye", aim, speed["eye"] / FAST),
        Figure("time of a step, full display", "rendering and policy", speed["rendered"] / speed["tiles"]),
        Figure("time of a step, full display", "policy without rendering", speed["bare"] / speed["tiles"]),
    ]


if __name__ == "__main__":
    sys.exit(main("Watching", parts))
