"""Several processes with one thread each against one process with several threads, and what the exchange costs.

    python -m benchmarks.scaling [--json FILE]

Six games, 66 environments: the preset `quick` (a light encoder and APPO), and the published SRWM and encoder with
IMPALA, in the machine's best precision and in float32. The ways take turns on this machine, so that what else it does
meets all. The model of other machines at the end is computed, not measured (docs/scaling.md).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from agents import ALGORITHMS, Agent, ImpalaConfig
from agents.distributed import joined
from agents.exchange import Exchange
from agents.losses import moments
from benchmarks.faults.process import load_everything
from benchmarks.figures import Figure, Part, main
from benchmarks.team import Team
from envs import grouped_procgen
from experiments.presets import PRESETS
from policies import policy_config

CORES = 2
QUICK = PRESETS["quick"].config
PUBLISHED = replace(QUICK, policy=policy_config("srwm"), agent=ImpalaConfig())
FLOAT32 = replace(QUICK, policy=policy_config("srwm", precision="float32"), agent=ImpalaConfig())
KINDS = {
    "quick": QUICK,
    "IMPALA, srwm, published encoder": PUBLISHED,
    "IMPALA, srwm, published encoder in float32": FLOAT32,
}
STEPS = QUICK.num_envs * QUICK.agent.rollout_steps


@dataclass(frozen=True)
class Link:
    """What joins processes: bytes a second in one direction, and seconds until the first of them is there."""

    bandwidth: float
    latency: float


NVLINK, ETHERNET = Link(100e9, 20e-6), Link(1.25e9, 50e-6)
"""Assumed, not measured: a present GPU's link within a machine, and a network of 10 Gbit/s."""
SMALL_CALLS = 6
"""Collective calls of an update besides that for the gradient: stopping (2), scale, moments (2), finiteness."""


def sum_seconds(size: int, processes: int, link: Link) -> float:
    """How long a ring takes to sum `size` bytes: everything passes each process twice, in 2 (N - 1) messages."""
    messages = 2 * (processes - 1)
    return messages * (size / processes / link.bandwidth + link.latency)


def exchange_seconds(size: int, processes: int, link: Link) -> float:
    """The exchange of one update whose gradient has `size` bytes."""
    return sum_seconds(size, processes, link) + SMALL_CALLS * sum_seconds(8, processes, link)


def efficiency(update_seconds: float, size: int, processes: int, link: Link) -> float:
    """Speed of `processes` processes, divided by as many times that of one whose update takes `update_seconds`.

    Each process has the share of the environments that fills it as one process was filled: the run's batches grow.
    """
    return update_seconds / (update_seconds + exchange_seconds(size, processes, link))


def parts(quick: bool = False) -> list[Part]:
    """See the module."""
    return [
        *(
            Part(
                f"scaling: two processes against one, {kind}",
                partial(_speeds, kind, 1 if quick else 3, 2 if quick else 4),
            )
            for kind in KINDS
        ),
        Part("scaling: the exchange", lambda: _exchange(5 if quick else 20)),
    ]


def _agent(kind: str, exchange: Exchange, threads: int) -> Agent:
    torch.set_num_threads(threads)
    config = KINDS[kind]
    env = grouped_procgen(
        config.games, config.num_envs, groups=1, num_threads=min(4, threads), part=exchange.part
    )
    algorithm = ALGORITHMS[config.algorithm_name]
    return algorithm(config.policy, env, config.agent, seed=0, device="cpu", exchange=exchange)


@contextlib.contextmanager
def _several(size: int) -> Iterator[Exchange]:
    if size == 1:
        yield Exchange()
        return
    with joined() as exchange:
        yield exchange


def _measured(kind: str, size: int, threads: int, rollouts: int) -> dict[str, float]:
    """Training in `size` processes: steps a second, and what an update takes, by the clock of process 0."""

    def work(rank: int) -> dict[str, float]:
        with _several(size) as exchange:
            agent = _agent(kind, exchange, threads)
            agent.learn(STEPS)  # the first rollout costs extra
            updates, began = agent.learner.updates, time.perf_counter()
            agent.learn(rollouts * STEPS, reset_num_timesteps=False)
            seconds = time.perf_counter() - began
            made = agent.learner.updates - updates
            return {"steps": rollouts * STEPS / seconds, "update": seconds / made}

    found: dict[str, float] = _first_of(size, work)
    return found


def _first_of(size: int, work: Callable[[int], dict[str, float]]) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        team = Team(size, work, Path(folder))
        codes = team.wait()
        if any(codes):
            raise RuntimeError(f"{codes}: {team.said()}")
        found: dict[str, float] = team.result(0)
        return found


def _speeds(kind: str, repetitions: int, rollouts: int) -> list[Figure]:
    load_everything()
    ways = {"2 processes": (CORES, 1), "1 process": (1, CORES), "1 process, 1 thread": (1, 1)}
    best: dict[str, float] = dict.fromkeys(ways, 0.0)
    for _ in range(repetitions):
        for name, (size, threads) in ways.items():
            best[name] = max(best[name], _measured(kind, size, threads, rollouts)["steps"])
    facts = {f"{name} steps/s": speed for name, speed in best.items()}
    return [
        Figure(
            f"{kind}: 2 processes with 1 thread each, steps/s",
            "1 process with 2 threads",
            best["2 processes"] / best["1 process"],
            aim=1.1,
            facts=facts,
        ),
        Figure(
            f"{kind}: 2 processes with 1 thread each, steps/s",
            "2 x 1 process with 1 thread",
            best["2 processes"] / (2 * best["1 process, 1 thread"]),
        ),
    ]


def _exchange(repetitions: int) -> list[Figure]:
    load_everything()
    figures = []
    for kind in KINDS:
        found = _first_of(CORES, partial(_time_exchange, kind, repetitions))
        figures.append(
            Figure(
                f"{kind}: exchange of an update, seconds",
                "the update and the acting that it learns from",
                (found["sum of gradients"] + found["small calls"]) / found["update"],
                aim=0.02,
                at_most=True,
                facts={
                    "bytes": found["bytes"],
                    **{
                        f"{name} ms": 1e3 * found[name]
                        for name in ("sum of gradients", "small calls", "update")
                    },
                },
            )
        )
    return [*figures, *_computed(int(found["bytes"]))]


def _time_exchange(kind: str, repetitions: int, rank: int) -> dict[str, float]:
    """Seconds of an update with its share of acting, and the median of each part of its exchange."""
    with joined() as exchange:
        agent = _agent(kind, exchange, 1)
        agent.learn(STEPS)
        began, before = time.perf_counter(), agent.learner.updates
        agent.learn(2 * STEPS, reset_num_timesteps=False)
        update = (time.perf_counter() - began) / (agent.learner.updates - before)
        parameters = list(agent.policy.parameters())
        seconds: dict[str, float] = {}
        for name, call in {
            "sum of gradients": lambda: exchange.sum_gradients(parameters),
            "small calls": lambda: _small_calls(exchange),
        }.items():
            found = []
            for _ in range(repetitions):
                exchange.any(False)  # so that nobody waits for who comes late
                started = time.perf_counter()
                call()
                found.append(time.perf_counter() - started)
            seconds[name] = sorted(found)[len(found) // 2]
        size = sum(4 * parameter.numel() for parameter in parameters)
        return {"update": update, "bytes": float(size), **seconds}


def _computed(size: int) -> list[Figure]:
    """What the model says of machines that are not here, for a gradient of `size` bytes."""
    return [
        Figure(
            f"computed, not measured: {name}, {milliseconds} ms an update, steps/s",
            f"{processes} times one GPU",
            efficiency(milliseconds / 1e3, size, processes, link),
            facts={"exchange ms": 1e3 * exchange_seconds(size, processes, link)},
        )
        for name, processes, link in (("8 GPUs", 8, NVLINK), ("4 nodes of 8 GPUs", 32, ETHERNET))
        for milliseconds in (10, 30, 100)
    ]


def _small_calls(exchange: Exchange) -> None:
    """What an update of IMPALA exchanges besides gradients."""
    exchange.any(False)
    exchange.any(False)
    exchange.total(1.0)
    moments(torch.ones(2, 100), exchange.sum)


if __name__ == "__main__":
    sys.exit(main("Scaling", parts))
