"""Training against what a user would pick instead, with the same network, games, settings and number of environments.

    python -m benchmarks.peers [--json FILE]

66 environments, six games; PPO learns three times from rollouts of 256 steps, as OpenAI's does, in eleven minibatches
(with `--quick`: 96 steps in three, which flatters RecurrentPPO, since it pads sequences to the longest one), IMPALA as
published.

Stable-Baselines3's PPO and sb3-contrib's RecurrentPPO as they are shipped: torch's default memory layout, the image
transposed by Stable-Baselines3. Each runs in a process of its own, once with the allocator's setting that this
project makes (so that only the rest is compared) and once without it; its peak memory is that process's.

Of other libraries, these multiples of Stable-Baselines3's PPO were measured with six games on a machine of two cores,
each with the allocator's setting: CleanRL's PPO 1.29, torchbeast's monobeast with LSTM 1.11, sample-factory's APPO
with LSTM 1.64, sb3-contrib's RecurrentPPO 0.40. The aims below follow from them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import ALGORITHMS
from agents.device import keep_large_buffers, peak_memory
from benchmarks.figures import Figure, Part, main
from envs import TASK_SETS, ProcgenVecEnv

NUM_ENVS, EPOCHS, HIDDEN = 66, 3, 256
PLAIN, RECURRENT = "stable-baselines3 PPO", "sb3-contrib RecurrentPPO"
CLEANRL, BEST_RECURRENT = 1.29, 1.64


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


class PlainEncoder(BaseFeaturesExtractor):
    """The IMPALA network written as usual, with the last reward appended to its features."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, HIDDEN + 1)
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in (16, 32, 32):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
            layers += [_Residual(outputs), _Residual(outputs)]
            inputs = outputs
        self.network = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(2048, HIDDEN), nn.ReLU())

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        return torch.cat([self.network(observations["rgb"]), observations["reward"]], dim=1)


@dataclass(frozen=True)
class Size:
    """How long PPO's rollouts are, and into how many minibatches they are cut."""

    steps: int = 256
    minibatches: int = 11


def _peer(size: Size, make: Callable[..., Any], **policy: Any) -> Any:
    return make(
        "MultiInputLstmPolicy" if policy else "MultiInputPolicy",
        ProcgenVecEnv(TASK_SETS["easy6"], NUM_ENVS),
        learning_rate=5e-4,
        n_steps=size.steps,
        batch_size=NUM_ENVS * size.steps // size.minibatches,
        n_epochs=EPOCHS,
        gamma=0.999,
        ent_coef=0.01,
        policy_kwargs={"features_extractor_class": PlainEncoder, "net_arch": [], **policy},
        device="cpu",
        seed=0,
    )


def _recurrent_peer(size: Size) -> Any:
    from sb3_contrib import RecurrentPPO

    return _peer(size, RecurrentPPO, lstm_hidden_size=HIDDEN, shared_lstm=True, enable_critic_lstm=False)


def _ours(size: Size, algorithm: str, core: str) -> Any:
    options: dict[str, Any] = (
        {"rollout_steps": size.steps, "minibatches": size.minibatches} if algorithm == "ppo" else {}
    )
    return ALGORITHMS[algorithm](
        core, ProcgenVecEnv(TASK_SETS["easy6"], NUM_ENVS), seed=0, device="cpu", **options
    )


AGENTS: dict[str, Callable[[Size], Any]] = {
    PLAIN: lambda size: _peer(size, stable_baselines3.PPO),
    RECURRENT: _recurrent_peer,
    "PPO feedforward": lambda size: _ours(size, "ppo", "feedforward"),
    "PPO lstm": lambda size: _ours(size, "ppo", "lstm"),
    "PPO srwm": lambda size: _ours(size, "ppo", "srwm"),
    "IMPALA srwm": lambda size: _ours(size, "impala", "srwm"),
}


def train(name: str, size: Size, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    """Train for `rollouts` rollouts: steps/s of the fastest, and the process's peak memory in GB."""
    if keep_buffers:
        keep_large_buffers()
    agent = AGENTS[name](size)
    seconds: list[float] = []
    for _ in range(rollouts):
        before, began = agent.num_timesteps if seconds else 0, time.perf_counter()
        agent.learn(1, reset_num_timesteps=not seconds)
        seconds.append((time.perf_counter() - began) / (agent.num_timesteps - before))
    return {"steps/s": 1.0 / min(seconds), "peak GB": peak_memory()["peak_gb"]}


def _in_a_process(name: str, size: Size, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    numbers = [size.steps, size.minibatches, rollouts, int(keep_buffers), torch.get_num_threads()]
    words = [sys.executable, "-m", "benchmarks.peers", "--agent", name, *map(str, numbers)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


AS_SHIPPED = f"{PLAIN}, as shipped"


def parts(quick: bool = False) -> list[Part]:
    """Each agent in turn; figures follow as soon as both agents that they hold against each other have trained."""
    size = Size(96, 3) if quick else Size()
    found: dict[str, dict[str, float]] = {}

    def run(name: str) -> list[Figure]:
        before = _figures(found)
        if name == AS_SHIPPED:
            found[name] = _in_a_process(PLAIN, size, 1, False)
        else:
            found[name] = _in_a_process(name, size, 3 if name.startswith("IMPALA") else 1, True)
        return [figure for figure in _figures(found) if figure not in before]

    names = [*(() if quick else (AS_SHIPPED,)), *AGENTS]
    return [Part(f"peers: {name}", partial(run, name)) for name in names]


def _figures(found: Mapping[str, dict[str, float]]) -> list[Figure]:
    """Speed and peak memory of ours against the peers', of those that have trained."""
    figures = []
    for ours, peer, aim in (
        ("PPO feedforward", PLAIN, CLEANRL),
        ("PPO lstm", RECURRENT, 3.0),
        ("PPO srwm", RECURRENT, 3.0),
        ("IMPALA srwm", PLAIN, 2 * BEST_RECURRENT),
    ):
        if ours not in found or peer not in found:
            continue
        facts = {name: found[name]["steps/s"] for name in (ours, peer)}
        if peer == PLAIN and AS_SHIPPED in found:
            facts[AS_SHIPPED] = found[AS_SHIPPED]["steps/s"]
        figures.append(
            Figure(f"{ours}: training, steps/s", peer, facts[ours] / facts[peer], aim, facts=facts)
        )
        memory = {f"{name} GB": found[name]["peak GB"] for name in (ours, peer)}
        ratio = found[ours]["peak GB"] / found[peer]["peak GB"]
        figures.append(Figure(f"{ours}: peak memory", peer, ratio, 1.0, at_most=True, facts=memory))
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        name = sys.argv[2]
        steps, minibatches, rollouts, keep_buffers, threads = map(int, sys.argv[3:])
        torch.set_num_threads(threads)
        print(json.dumps(train(name, Size(steps, minibatches), rollouts, bool(keep_buffers))))
    else:
        sys.exit(main("Peers", parts))
