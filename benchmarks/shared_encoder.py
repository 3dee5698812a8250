"""Several policies trained in turn on one encoder: what each costs those before it, and what the weight plasticity
loss saves.

$ python -m benchmarks.shared_encoder --game bigfish --steps 200_000 --out shared_encoder.json

The setting that the loss was made for (Benyahia, Yu et al. 2019, arXiv 1902.08232): the data stay, the models change.
Each policy has a core and heads of its own and begins with the encoder as the one before it has left it; training it
changes what the earlier ones see. After each, all that there are play the game with the encoder as it is now: row j of
a table holds the returns of policies 1 to j after the j-th was trained, and what policy i has lost in the end is
entry (i, i) minus the last one of its column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from agents import ALGORITHMS, Agent
from agents.retention import RetentionConfig
from benchmarks.machine import describe_machine
from common.cli import run_with_options
from common.config import Range
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation import Protocol, evaluate
from policies import CORES, PolicyConfig, policy_config

CONDITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "diagonal": ("wpl", {"wpl_form": "diagonal"}),
    "schur": ("wpl", {"wpl_form": "schur"}),
}
"""Method and settings of each form of the loss."""


@dataclass(frozen=True)
class Models:
    """Policies that are trained one after the other.

    Attributes:
        policies: their networks; all have the same encoder.
        make_env: environments by the place of a policy in the order.
        score: what a policy is worth.
        steps: environment steps of each.
        algorithm: that trains them.
        settings: its settings.
    """

    policies: tuple[PolicyConfig, ...]
    make_env: Callable[[int], VecEnv]
    score: Callable[[Agent], float]
    steps: int
    algorithm: str = "appo"
    settings: dict[str, Any] = field(default_factory=dict)

    def train(self, retention: str, retain: RetentionConfig, seed: int) -> list[list[float]]:
        """The table of returns; row j has those of policies 0 to j."""
        trained: list[Agent] = []
        table = []
        for place, policy in enumerate(self.policies):
            agent: Agent = ALGORITHMS[self.algorithm](
                policy, self.make_env(place), retention=retention, retain=retain, seed=seed, **self.settings
            )
            if trained:
                hand_on(trained[-1], agent)
            agent.learn(self.steps)
            share_encoder(agent, trained)
            trained.append(agent)
            table.append([self.score(each) for each in trained])
            self._leave(agent, place)
        return table

    def _leave(self, agent: Agent, place: int) -> None:
        """Let the method look at what this policy depends on; it is not trained any more."""
        before, after = agent.env, self.make_env(place)
        agent.change_task(after, 1)
        for env in (before, after):
            assert env is not None
            env.close()


def hand_on(before: Agent, agent: Agent) -> None:
    """Begin with the encoder of `before`, and with what the method has kept of it: shared weights alone."""
    agent.policy.encoder.load_state_dict(before.policy.encoder.state_dict())
    agent.retention.load_state(before.retention.state())
    agent.actors.follow_learner()


def share_encoder(agent: Agent, others: list[Agent]) -> None:
    """Give `others` the encoder of `agent`, as it is now."""
    for other in others:
        other.policy.encoder.load_state_dict(agent.policy.encoder.state_dict())


def forgetting(table: list[list[float]]) -> float:
    """What all policies but the last have lost since they were trained, on average; NaN for a single one."""
    lost = [table[place][place] - table[-1][place] for place in range(len(table) - 1)]
    return sum(lost) / len(lost) if lost else float("nan")


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        game: that all policies play.
        cores: of the policies, in their order.
        conditions: what holds the encoder: none, diagonal or schur.
        strength: of the loss; none for its default.
        steps: environment steps of each policy.
        num_envs: environments.
        episodes: that each policy is scored by.
        seeds: how many.
        out: file for the result; none only prints it.
    """

    game: str = "bigfish"
    cores: tuple[str, ...] = ("lstm", "deltanet", "srwm")
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    strength: Annotated[float | None, Range(0)] = None
    steps: Annotated[int, Range(1)] = 200_000
    num_envs: Annotated[int, Range(1)] = 64
    episodes: Annotated[int, Range(1)] = 100
    seeds: Annotated[int, Range(1)] = 1
    out: Path | None = None

    def models(self, seed: int) -> Models:
        """The policies on the game's training levels, with a light encoder."""
        protocol = Protocol((self.game,), splits=("train",), episodes=self.episodes, greedy=False)
        return Models(
            tuple(policy_config(core, encoder="space_to_depth") for core in self.cores),
            lambda place: ProcgenVecEnv(self.game, self.num_envs, seed=seed * len(self.cores) + place),
            lambda agent: evaluate(agent, protocol).scores[0].raw.mean,
            self.steps,
        )


def main(options: Options) -> None:
    """Train all policies under each condition, and print what each has lost."""
    for what, names, known in (
        ("core", options.cores, CORES),
        ("condition", options.conditions, CONDITIONS),
    ):
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"unknown {what} {unknown[0]!r}: use some of {', '.join(known)}")
    tables: dict[str, list[list[list[float]]]] = {}
    for name in options.conditions:
        retention, settings = CONDITIONS[name]
        if options.strength is not None:
            settings = {**settings, "wpl_strength": options.strength}
        retain = RetentionConfig(**settings)
        tables[name] = [options.models(seed).train(retention, retain, seed) for seed in range(options.seeds)]
        lost = [forgetting(table) for table in tables[name]]
        print(f"{name:10} lost {sum(lost) / len(lost):7.3f}", tables[name], flush=True)
    result = {
        "command": " ".join(["python -m benchmarks.shared_encoder", *sys.argv[1:]]),
        "machine": describe_machine(),
        "returns": tables,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run_with_options(Options, main, "python -m benchmarks.shared_encoder"))
