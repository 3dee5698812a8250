"""Training against what a user would pick instead, with the same network, slots, games and settings.

    python -m benchmarks.peers [--json FILE]

66 slots, six games; PPO learns three times from rollouts of 256 steps, as OpenAI's does, in eleven minibatches (with
`--quick`: 96 steps in three, which flatters RecurrentPPO, since it pads sequences to the longest one), IMPALA as
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import ALGORITHMS
from agents.device import keep_large_buffers
from agents.device import peak_memory
from benchmarks.figures import Figure, main
from envs import TASK_SETS, ProcgenVecEnv

SLOTS, EPOCHS, HIDDEN = 66, 3, 256
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
        ProcgenVecEnv(TASK_SETS["easy6"], SLOTS),
        learning_rate=5e-4,
        n_steps=size.steps,
        batch_size=SLOTS * size.steps // size.minibatches,
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
        core, ProcgenVecEnv(TASK_SETS["easy6"], SLOTS), seed=0, device="cpu", **options
    )


SUBJECTS: dict[str, Callable[[Size], Any]] = {
    PLAIN: lambda size: _peer(size, stable_baselines3.PPO),
    RECURRENT: _recurrent_peer,
    "PPO feedforward": lambda size: _ours(size, "ppo", "feedforward"),
    "PPO lstm": lambda size: _ours(size, "ppo", "lstm"),
    "PPO srwm": lambda size: _ours(size, "ppo", "srwm"),
    "IMPALA srwm": lambda size: _ours(size, "impala", "srwm"),
}


def run_subject(name: str, size: Size, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    """Train for `rollouts` rollouts: steps/s of the fastest, and the process's peak memory in GB."""
    if keep_buffers:
        keep_large_buffers()
    agent = SUBJECTS[name](size)
    seconds: list[float] = []
    for _ in range(rollouts):
        before, began = agent.num_timesteps if seconds else 0, time.perf_counter()
        agent.learn(1, reset_num_timesteps=not seconds)
        seconds.append((time.perf_counter() - began) / (agent.num_timesteps - before))
    return {"steps/s": 1.0 / min(seconds), "peak GB": peak_memory()["peak_gb"]}


def _in_a_process(name: str, size: Size, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    numbers = [size.steps, size.minibatches, rollouts, int(keep_buffers), torch.get_num_threads()]
    words = [sys.executable, "-m", "benchmarks.peers", "--subject", name, *map(str, numbers)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def measure(quick: bool = False) -> list[Figure]:
    """Speed and peak memory of ours against the peers'."""
    size = Size(96, 3) if quick else Size()
    with_setting = {
        name: _in_a_process(name, size, 3 if name.startswith("IMPALA") else 1, True) for name in SUBJECTS
    }
    shipped = {} if quick else {PLAIN: _in_a_process(PLAIN, size, 1, False)}

    def figure(ours: str, peer: str, aim: float | None) -> Figure:
        facts = {name: with_setting[name]["steps/s"] for name in (ours, peer)}
        if peer in shipped:
            facts[f"{peer}, as shipped"] = shipped[peer]["steps/s"]
        return Figure(f"{ours}: training, steps/s", peer, facts[ours] / facts[peer], aim, facts=facts)

    figures = [
        figure("PPO feedforward", PLAIN, CLEANRL),
        figure("PPO lstm", RECURRENT, 3.0),
        figure("PPO srwm", RECURRENT, 3.0),
        figure("IMPALA srwm", PLAIN, 2 * BEST_RECURRENT),
    ]
    figures += [
        Figure(
            f"{ours}: peak memory",
            peer,
            with_setting[ours]["peak GB"] / with_setting[peer]["peak GB"],
            1.0,
            at_most=True,
            facts={f"{name} GB": with_setting[name]["peak GB"] for name in (ours, peer)},
        )
        for ours, peer in (("PPO feedforward", PLAIN), ("PPO lstm", RECURRENT), ("IMPALA srwm", PLAIN))
    ]
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--subject"]:
        subject = sys.argv[2]
        steps, minibatches, rollouts, keep_buffers, threads = map(int, sys.argv[3:])
        torch.set_num_threads(threads)
        print(json.dumps(run_subject(subject, Size(steps, minibatches), rollouts, bool(keep_buffers))))
    else:
        sys.exit(main("Peers", measure))
