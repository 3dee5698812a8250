"""Acting, learning and both together, of every core: what a run's steps a second are made of.

    python -m benchmarks.training [--json FILE]

Six games, 66 environments, the paper's network and hyperparameters, unless a figure says otherwise.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agents import IMPALA, Agent
from benchmarks.figures import Figure, Part, best_seconds, main
from envs import TASK_SETS, grouped_procgen
from policies import CORES, policy_config

NUM_ENVS = 66
LIGHT = "early_pool"
"""The encoder of the presets for processors, beside which cores and Python around each step show."""


@dataclass(frozen=True)
class Case:
    """What is trained."""

    core: str = "srwm"
    encoder: str = "impala"
    games: tuple[str, ...] = TASK_SETS["easy6"]
    num_envs: int = NUM_ENVS
    groups: int = 1

    def agent(self) -> Agent:
        """A fresh agent with one rollout behind it."""
        env = grouped_procgen(self.games, self.num_envs, groups=self.groups)
        agent = IMPALA(policy_config(self.core, encoder=self.encoder), env, seed=0)
        agent.learn(1)
        return agent


def collect(agent: Agent) -> None:
    """One rollout, without learning."""
    actors = agent.actors
    agent.stream, _ = actors.collector.collect(agent.stream, actors.stores[0], lambda infos: True)


def train(agent: Agent) -> None:
    """One rollout and what is learnt from it, with all that `learn` does around it."""
    agent.learn(1, reset_num_timesteps=False)


def parts(quick: bool = False) -> list[Part]:
    """See the module."""
    repetitions = 2 if quick else 4
    cores = ["srwm", "deltanet"] if quick else [name for name in CORES if name != "feedforward"]
    found = [
        Part("training: acting, learning, both", partial(_stages, repetitions)),
        Part(f"training: {', '.join(cores)}, feedforward", partial(_cores, cores, repetitions)),
        Part("training: a light encoder", partial(_light, repetitions)),
    ]
    if not quick:
        found += [
            Part("training: 1, 6 and 16 games", partial(_games, repetitions)),
            Part("training: 18 to 510 environments", partial(_num_envs, repetitions)),
        ]
    return found


def _rates(cases: dict[str, Case], work: Callable[[Agent], None], repetitions: int) -> dict[str, float]:
    """Environment steps a second of each case."""
    agents = {name: case.agent() for name, case in cases.items()}
    seconds = best_seconds({name: partial(work, agent) for name, agent in agents.items()}, repetitions)
    steps = {name: agent.n_envs * agent.config.rollout_steps for name, agent in agents.items()}
    for agent in agents.values():
        assert agent.env is not None
        agent.env.close()
    return {name: steps[name] / seconds[name] for name in cases}


def _stages(repetitions: int) -> list[Figure]:
    """Training against acting and learning, each by itself; groups of environments."""
    agent, grouped = Case().agent(), Case(groups=2).agent()
    seconds = best_seconds(
        {
            "acting": lambda: collect(agent),
            "in two groups": lambda: collect(grouped),
            "learning": lambda: agent.learner.learn(agent.actors.stores[0].batch, 0),
            "training": lambda: train(agent),
        },
        repetitions,
    )
    steps = NUM_ENVS * agent.config.rollout_steps
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
        Figure("acting with environments in two groups", "in one", rates["in two groups"] / rates["acting"]),
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


def _light(repetitions: int) -> list[Figure]:
    """SRWMs against a feed-forward policy where the encoder hides nothing: training, and acting alone."""
    cases = {name: Case(name, LIGHT) for name in ("feedforward", "srwm", "srwm_sharp")}
    figures = []
    for doing, work in (("training", train), ("acting", collect)):
        rates = _rates(cases, work, repetitions)
        figures += [
            Figure(
                f"IMPALA, {name}, {LIGHT} encoder: {doing}, steps/s",
                "feedforward",
                rates[name] / rates["feedforward"],
                aim=0.85 if doing == "training" else None,
                facts={core: rates[core] for core in (name, "feedforward")},
            )
            for name in ("srwm", "srwm_sharp")
        ]
    return figures


def _games(repetitions: int) -> list[Figure]:
    cases = {
        "1 game": Case(games=("bigfish",), num_envs=64),
        "6 games": Case(),
        "16 games": Case(games=TASK_SETS["all16"], num_envs=64),
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


def _num_envs(repetitions: int) -> list[Figure]:
    sizes = (18, 66, 258, 510)
    cases = {f"{size} environments": Case(num_envs=size) for size in sizes}
    rates = _rates(cases, train, repetitions)
    return [
        Figure(
            f"IMPALA, srwm, {few} environments, steps/s",
            f"{many} environments",
            rates[f"{few} environments"] / rates[f"{many} environments"],
        )
        for few, many in itertools.pairwise(sizes)
    ]


if __name__ == "__main__":
    sys.exit(main("Training", parts))
