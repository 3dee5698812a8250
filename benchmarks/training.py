"""Acting, learning and both together, of every core: what a run's steps a second are made of.

    python -m benchmarks.training [--json FILE]

Six games, 66 slots, the paper's network and hyperparameters, unless a figure says otherwise.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agents import IMPALA, Agent
from benchmarks.figures import Figure, best_seconds, main
from envs import TASK_SETS, grouped_procgen
from policies import CORES

SLOTS = 66


@dataclass(frozen=True)
class Case:
    """What is trained."""

    core: str = "srwm"
    games: tuple[str, ...] = TASK_SETS["easy6"]
    slots: int = SLOTS
    groups: int = 1

    def agent(self) -> Agent:
        """A fresh agent with one rollout behind it."""
        env = grouped_procgen(self.games, self.slots, groups=self.groups)
        agent = IMPALA(self.core, env, seed=0)
        agent.learn(1)
        return agent


def collect(agent: Agent) -> None:
    """One rollout, without learning."""
    stream, _ = agent.actors.collector.collect(agent.stream, agent._stores[0], lambda infos: True)
    agent.stream = stream


def train(agent: Agent) -> None:
    """One rollout and what is learnt from it, with all that `learn` does around it."""
    agent.learn(1, reset_num_timesteps=False)


def measure(quick: bool = False) -> list[Figure]:
    """See the module."""
    repetitions = 2 if quick else 4
    figures = _parts(repetitions)
    figures += _cores(
        ["srwm", "deltanet"] if quick else [name for name in CORES if name != "feedforward"], repetitions
    )
    if not quick:
        figures += _games(repetitions)
        figures += _slots(repetitions)
    return figures


def _rates(cases: dict[str, Case], work: Callable[[Agent], None], repetitions: int) -> dict[str, float]:
    """Environment steps a second of each case."""
    agents = {name: case.agent() for name, case in cases.items()}
    seconds = best_seconds({name: partial(work, agent) for name, agent in agents.items()}, repetitions)
    steps = {name: agent.n_envs * agent.config.rollout_steps for name, agent in agents.items()}
    for agent in agents.values():
        assert agent.env is not None
        agent.env.close()
    return {name: steps[name] / seconds[name] for name in cases}


def _parts(repetitions: int) -> list[Figure]:
    """Training against acting and learning, each by itself; groups of slots."""
    agent, grouped = Case().agent(), Case(groups=2).agent()
    seconds = best_seconds(
        {
            "acting": lambda: collect(agent),
            "in two groups": lambda: collect(grouped),
            "learning": lambda: agent.update(agent._stores[0].batch),
            "training": lambda: train(agent),
        },
        repetitions,
    )
    steps = SLOTS * agent.config.rollout_steps
    rates = {name: steps / spent for name, spent in seconds.items()}
    allowed = 1.0 / (1.0 / rates["acting"] + 1.0 / rates["learning"])
    return [
        Figure(
            "IMPALA, srwm: training, steps/s",
            "what acting and learning by themselves allow",
            rates["training"] / allowed,
            aim=0.85,
            facts={name: rates[name] for name in ("training", "acting", "learning")},
        ),
        Figure("acting with slots in two groups", "in one", rates["in two groups"] / rates["acting"]),
    ]


def _cores(names: list[str], repetitions: int) -> list[Figure]:
    rates = _rates({name: Case(name) for name in ["feedforward", *names]}, train, repetitions)
    return [
        Figure(
            f"IMPALA, {name}: training, steps/s",
            "feedforward",
            rates[name] / rates["feedforward"],
            aim=0.9 if name in ("srwm", "deltanet", "lstm") else None,
            facts={core: rates[core] for core in (name, "feedforward")},
        )
        for name in names
    ]


def _games(repetitions: int) -> list[Figure]:
    cases = {
        "1 game": Case(games=("bigfish",), slots=64),
        "6 games": Case(),
        "16 games": Case(games=TASK_SETS["all16"], slots=64),
    }
    rates = _rates(cases, train, repetitions)
    slow, fast = min(rates.values()), max(rates.values())
    return [
        Figure(
            "IMPALA, srwm, slowest of 1, 6 and 16 games, steps/s",
            "the fastest",
            slow / fast,
            0.9,
            facts=rates,
        )
    ]


def _slots(repetitions: int) -> list[Figure]:
    slots = (18, 66, 258, 510)
    rates = _rates({f"{number} slots": Case(slots=number) for number in slots}, train, repetitions)
    return [
        Figure(
            f"IMPALA, srwm, {few} slots, steps/s",
            f"{many} slots",
            rates[f"{few} slots"] / rates[f"{many} slots"],
        )
        for few, many in itertools.pairwise(slots)
    ]


if __name__ == "__main__":
    sys.exit(main("Training", measure))
