"""What methods of continual learning cost: time of training, of a consolidation, of storing and of checkpoints.

    python -m benchmarks.continual [--quick] [--json FILE]

One game, the paper's network, in the second of two tasks, where every method acts. Seconds are those of the processor,
so that other work on the machine does not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents import IMPALA, Agent
from agents.retention import RetentionConfig
from agents.retention.clear import SEQUENCES
from agents.retention.store import UnrollStore, offer
from benchmarks.figures import Figure, Part, main
from envs import ProcgenVecEnv
from policies import TaskConfig, policy_config

NUM_ENVS = 16
AIMS: dict[str, tuple[dict[str, Any], float]] = {
    "ewc": ({}, 1.02),
    "online_ewc": ({}, 1.02),
    "si": ({}, 1.03),
    "lwf": ({}, 1.35),
    "xdg": ({}, 1.02),
    "clear": ({}, 2.05),
    "generative": ({}, 1.10),
    "wpl": ({}, 1.02),
    "wpl schur": ({"wpl_form": "schur"}, 1.05),
}
"""Settings of each case, and the most that it may take of the time of none."""
LEARNER = "clear"
"""Its aim is for learning alone; those of the others are for all of training."""


def agent_with(name: str, settings: Mapping[str, Any]) -> Agent:
    """An agent at the beginning of its second task, with a rollout behind it."""
    policy = policy_config("srwm")
    if name == "xdg":
        policy = replace(policy, tasks=TaskConfig(2, "told", "per-task"))
    retain = RetentionConfig(consolidation_rollouts=1, **settings)
    first, second = (ProcgenVecEnv(game, NUM_ENVS, num_threads=0) for game in ("bigfish", "fruitbot"))
    agent = IMPALA(policy, first, retention=name.split()[0], retain=retain, seed=0)
    agent.learn(1)
    agent.change_task(second, 1)
    first.close()
    return agent.learn(1, reset_num_timesteps=False)


def cpu_seconds(parts: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """The least processor time of each part; they take turns."""
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(repetitions):
        for name, part in parts.items():
            began = time.process_time()
            part()
            best[name] = min(best[name], time.process_time() - began)
    return best


def train(agent: Agent) -> None:
    """One rollout and what is learnt from it."""
    agent.learn(1, reset_num_timesteps=False)


def learn(agent: Agent) -> None:
    """What is learnt from a rollout."""
    agent.learner.learn(agent.actors.stores[0].batch, 0)


def _overheads(repetitions: int) -> list[Figure]:
    agents = {"none": agent_with("none", {})}
    agents |= {name: agent_with(name, settings) for name, (settings, _) in AIMS.items()}
    work = {name: partial(learn if name == LEARNER else train, agent) for name, agent in agents.items()}
    work["none, learning"] = partial(learn, agents["none"])
    seconds = cpu_seconds(work, repetitions)
    figures = []
    for name, (_, aim) in AIMS.items():
        against = "none, learning" if name == LEARNER else "none"
        what = "learning" if name == LEARNER else "training"
        facts = {f"{name} s": seconds[name], f"{against} s": seconds[against]}
        ratio = seconds[name] / seconds[against]
        figures.append(Figure(f"{name}: {what}, processor time", against, ratio, aim, True, facts))
    return figures


def _consolidation() -> list[Figure]:
    """Measuring what a task depends on: 33 backward passes of 16 unrolls are what 8 rollouts of 66 take."""
    agent = agent_with("ewc", {})
    batch = agent.actors.stores[0].batch
    passes = 33 * 16 / NUM_ENVS
    seconds = cpu_seconds({"pass": lambda: agent.retention.measure(lambda count: iter([batch]))}, 2)["pass"]  # type: ignore[attr-defined]
    facts = {"s of 16 unrolls": seconds}
    return [Figure("ewc: a consolidation, seconds", "60 s", passes * seconds / 60.0, 1.0, True, facts)]


def _store(unrolls: int) -> list[Figure]:
    """Sampling from disk, and a checkpoint with much stored over one with nothing."""
    agent = agent_with("clear", {})
    batch = agent.actors.stores[0].batch
    sequences = {name: getattr(batch, name) for name in SEQUENCES}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store = UnrollStore(lambda row_bytes: unrolls, torch.Generator().manual_seed(0))
        store.use_directory(Path(folder) / "replay")
        while store.seen < unrolls:
            offer(store, sequences, batch.initial_state)
        store.sample(len(store), torch.device("cpu"))  # every file has been opened and checked
        save = {"empty": lambda: agent.save(Path(folder) / "a.ckpt")}
        seconds = cpu_seconds({"sample": lambda: store.sample(32, torch.device("cpu")), **save}, 5)
        agent.retention.store = store  # type: ignore[attr-defined]
        full = cpu_seconds({"full": save["empty"]}, 5)["full"]
        disk = sum(path.stat().st_size for path in Path(folder, "replay").iterdir())
    facts = {"ms": 1e3 * seconds["sample"]}
    sampling = Figure("clear: 32 unrolls from disk", "5 ms", seconds["sample"] / 5e-3, 1.0, True, facts)
    facts = {"unrolls": unrolls, "MB on disk": disk / 1e6, "ms": 1e3 * full}
    ratio = full / seconds["empty"]
    return [
        sampling,
        Figure("clear: a checkpoint with unrolls stored", "with a few", ratio, 1.1, True, facts),
    ]


def parts(quick: bool = False) -> list[Part]:
    """See the module."""
    return [
        Part("continual: training with each method", partial(_overheads, 2 if quick else 5)),
        Part("continual: a consolidation", _consolidation),
        Part("continual: stored unrolls", partial(_store, 256 if quick else 4_000)),
    ]


if __name__ == "__main__":
    sys.exit(main("Continual learning", parts))
