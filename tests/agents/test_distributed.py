"""Several processes against one: the same data must give the same gradients, weights and statistics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor

from agents import APPO, IMPALA, PPO, Agent, acting
from agents.distributed import joined
from agents.exchange import Exchange
from agents.learner import Learner
from benchmarks.faults.process import load_everything
from benchmarks.team import together
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, TaskConfig, policy_config

GAMES, NUM_ENVS, STEPS, ROLLOUTS = ("bigfish", "dodgeball"), 12, 8, 6
COMMON = {"rollout_steps": STEPS, "reward_transform": "normalize", "discount": 0.9}
CASES: dict[str, tuple[type[Agent], str, dict[str, Any]]] = {
    "impala-feedforward": (IMPALA, "feedforward", {"batch_unrolls": 6}),
    "impala-srwm": (IMPALA, "srwm", {"batch_unrolls": 4}),
    "impala-srwm-lag": (IMPALA, "srwm", {"batch_unrolls": 6, "rollout_lag": 1}),
    "ppo-feedforward": (PPO, "feedforward", {"minibatches": 2, "epochs": 2}),
    "ppo-srwm": (PPO, "srwm", {"minibatches": 2, "epochs": 1}),
    "appo-srwm": (APPO, "srwm", {"batch_unrolls": 12, "passes": 2}),
    "impala-srwm-gated": (IMPALA, "srwm", {"batch_unrolls": 6, "retention": "xdg"}),
}


class Kept(KVWriter):
    """Keeps what is logged, but for the clock, what process 0 says of its own environments alone, and how many ratios
    are above 1: rounding decides where it is 1."""

    LEFT_OUT = ("time/sps", "memory/", "train/rho_clipped")

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Mapping[str, Any], step: int = 0) -> None:
        self.entries.append(
            {
                tag: value
                for tag, value in key_values.items()
                if not tag.startswith(self.LEFT_OUT) and not tag.endswith("_spread")
            }
        )

    def close(self) -> None:
        pass


def take_given_actions(exchange: Exchange) -> None:
    """Let actors take the actions of a table, so that what is played does not depend on weights."""
    table = np.random.default_rng(5).integers(15, size=(STEPS * ROLLOUTS + STEPS, NUM_ENVS))
    count, own = itertools.count(), NUM_ENVS // exchange.size
    part = slice(exchange.rank * own, (exchange.rank + 1) * own)

    def sample(logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.as_tensor(table[next(count)][part])

    acting.sample = sample


def deal_like(size: int) -> None:
    """Let one process put the batches together that `size` processes deal."""
    dealt = Learner.dealt

    class Part(Exchange):
        def __init__(self, rank: int) -> None:
            self.rank, self.size = rank, size

    def together(self: Learner, count: int, parts: int) -> Iterator[Tensor]:
        state, alone, found = self.shuffling.get_state(), self.exchange, []
        envs = NUM_ENVS if count % NUM_ENVS == 0 else count
        own = envs // size
        for rank in range(size):
            self.shuffling.set_state(state)
            self.exchange = Part(rank)
            # Number i of a process is environment i % own of its own, at step i // own where steps are dealt.
            found.append([i // own * envs + rank * own + i % own for i in dealt(self, count // size, parts)])
        self.exchange = alone
        for batch in zip(*found, strict=True):
            yield torch.cat(batch)

    Learner.dealt = together


def train(case: str, exchange: Exchange) -> dict[str, Any]:
    """What `ROLLOUTS` rollouts make of a fresh agent."""
    algorithm, core, settings = CASES[case]
    small = {} if core == "feedforward" else {"width": 8, "heads": 2, "feedforward": 8, "layers": 1}
    config = policy_config(core, encoder=ImpalaEncoderConfig(hidden=8, channels=(4,)))
    tasks = TaskConfig(count=2, id="told" if "retention" in settings else "hidden")
    config = replace(config, core=replace(config.core, **small), tasks=tasks)
    env = ProcgenVecEnv(GAMES, NUM_ENVS, num_threads=0, part=exchange.part)
    take_given_actions(exchange)
    agent = algorithm(config, env, seed=3, device="cpu", exchange=exchange, **COMMON, **settings)
    gradients: list[Tensor] = []
    clip = agent.learner._clip

    def keep_gradients(*arguments: Any) -> Tensor:
        gradients.append(torch.cat([p.grad.flatten() for p in agent.policy.parameters()]))
        return clip(*arguments)

    agent.learner._clip = keep_gradients
    log = Kept()
    agent.set_logger(Logger(None, [log]))
    agent.learn(NUM_ENVS * STEPS * ROLLOUTS)
    weights = torch.cat([p.detach().flatten() for p in agent.policy.parameters()])
    run = agent.actors.statistics()
    env.close()
    return {
        "gradients": torch.stack(gradients),
        "weights": weights,
        "log": log.entries,
        "statistics": {"episodes": run["episodes"], "rewards": run["collector"]["rewards"]["statistics"]},
    }


def shared(case: str) -> Any:
    with joined() as exchange:
        return train(case, exchange)


def alone(case: str, size: int) -> Any:
    deal_like(size)
    return train(case, Exchange())


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load_everything()  # so that forks need not


@pytest.mark.parametrize(("case", "size"), [(case, 3 if "feedforward" in case else 2) for case in CASES])
def test_several_processes_learn_what_one_learns_from_the_same_data(case: str, size: int) -> None:
    one, *processes = [
        *together(1, lambda rank: alone(case, size)),
        *together(size, lambda rank: shared(case)),
    ]
    for process in processes:
        assert len(process["gradients"]) == len(one["gradients"]) >= 10
        scale = one["gradients"].abs().max()
        torch.testing.assert_close(
            process["gradients"], one["gradients"], rtol=1e-3, atol=1e-4 * float(scale)
        )
        torch.testing.assert_close(process["weights"], one["weights"], rtol=1e-3, atol=1e-5)
        assert process["statistics"]["episodes"] == one["statistics"]["episodes"]
        for game, found in one["statistics"]["rewards"].items():
            assert process["statistics"]["rewards"][game] == pytest.approx(found, rel=1e-9)
        assert len(process["log"]) == len(one["log"]) == ROLLOUTS
        for mine, theirs in zip(process["log"], one["log"], strict=True):
            for tag in [
                tag for tag in mine if tag.endswith("_spread")
            ]:  # of two environments of each process
                assert mine.pop(tag) > 0.0
                assert theirs.pop(tag, 1.0) > 0.0
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4, nan_ok=True)
        assert {"train/loss", "train/explained_variance", "game/dodgeball/return"} <= set(mine)
