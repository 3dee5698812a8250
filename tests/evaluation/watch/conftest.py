"""Sessions of small agents, and servers of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from agents import IMPALA
from envs import ProcgenVecEnv
from evaluation.loading import TrainingInfo
from evaluation.watch.runner import SessionRunner
from evaluation.watch.server import serve
from evaluation.watch.session import Session
from evaluation.watch.side import SessionConfig, WatchedAgent
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

SIZES: dict[str, dict[str, int]] = {
    "lstm": {"hidden": 8},
    "feedforward": {},
}
SMALL = {"width": 8, "heads": 2, "feedforward": 8, "layers": 2}
GAMES = ("bossfight", "chaser")  # whose episodes are short, even those of agents that know nothing


@pytest.fixture(scope="session")
def watch() -> Callable[..., WatchedAgent]:
    """Makes untrained agents whose weights change quickly; equal arguments give equal agents."""
    env = ProcgenVecEnv(GAMES, 2, num_threads=0)

    def make(core: str = "srwm", seed: int = 1, reset: str = "episode", **settings: Any) -> WatchedAgent:
        config = PolicyConfig(
            core_config(core, **SIZES.get(core, SMALL)),
            ImpalaEncoderConfig(hidden=8, channels=(4,)),
            reset=reset,
        )
        agent = IMPALA(config, env, seed=seed, device="cpu")
        with torch.no_grad():
            agent.policy.actor.weight.mul_(20)
            agent.policy.actor.bias.zero_()
        return WatchedAgent(agent, f"{core} {seed}", TrainingInfo(("bossfight",), "easy", "0:12"), **settings)

    env.close()
    return make


@pytest.fixture
def session(watch: Callable[..., WatchedAgent]) -> Iterator[Callable[..., Session]]:
    """Makes sessions and closes them."""
    made: list[Session] = []

    def make(
        *agents: WatchedAgent,
        games: tuple[str, ...] = GAMES,
        history: int = 2**28,
        **config: Any,
    ) -> Session:
        made.append(Session(agents or [watch()], SessionConfig(games, **config), history))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Running:
    """A server in a thread of its own."""

    def __init__(self, session: Session, **options: Any) -> None:
        self.session, self.runner = session, SessionRunner(session)
        self.address = ""
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(options,))
        self._thread.start()
        assert self._ready.wait(30)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def _run(self, options: dict[str, Any]) -> None:
        self._task = self._loop.create_task(serve(self.runner, ready=self._listen, **options))
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failure = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._ready.set()

    def _listen(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def stop(self) -> None:
        """Stop the server, and raise what went wrong in it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)
        if self._failure is not None:
            raise self._failure


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until `condition` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    """Starts servers and stops them."""
    started: list[Running] = []

    def start(session: Session, **options: Any) -> Running:
        started.append(Running(session, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def wait() -> Callable[..., None]:
    """See `wait_for`."""
    return wait_for
