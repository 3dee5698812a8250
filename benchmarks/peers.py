"""Training against what a user would pick instead, with the same network, slots, games and settings.

    python -m benchmarks.peers [--json FILE]

66 slots, six games; PPO learns three times from rollouts of 96 steps, in three minibatches of 2112 frames (OpenAI's
settings but for shorter rollouts, to measure in minutes), IMPALA as published.

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
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import ALGORITHMS
from agents.allocator import keep_large_buffers
from agents.memory import peak_memory
from benchmarks.figures import Figure, main
from envs import TASK_SETS, ProcgenVecEnv

SLOTS, STEPS, MINIBATCHES, EPOCHS, HIDDEN = 66, 96, 3, 3, 256
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


def _peer(make: Callable[..., Any], **policy: Any) -> Any:
    return make(
        "MultiInputLstmPolicy" if policy else "MultiInputPolicy",
        ProcgenVecEnv(TASK_SETS["easy6"], SLOTS),
        learning_rate=5e-4,
        n_steps=STEPS,
        batch_size=SLOTS * STEPS // MINIBATCHES,
        n_epochs=EPOCHS,
        gamma=0.999,
        ent_coef=0.01,
        policy_kwargs={"features_extractor_class": PlainEncoder, "net_arch": [], **policy},
        device="cpu",
        seed=0,
    )


def _recurrent_peer() -> Any:
    from sb3_contrib import RecurrentPPO

    return _peer(RecurrentPPO, lstm_hidden_size=HIDDEN, shared_lstm=True, enable_critic_lstm=False)


def _ours(algorithm: str, core: str) -> Any:
    options: dict[str, Any] = (
        {"rollout_steps": STEPS, "minibatches": MINIBATCHES} if algorithm == "ppo" else {}
    )
    return ALGORITHMS[algorithm](
        core, ProcgenVecEnv(TASK_SETS["easy6"], SLOTS), seed=0, device="cpu", **options
    )


SUBJECTS: dict[str, Callable[[], Any]] = {
    PLAIN: lambda: _peer(stable_baselines3.PPO),
    RECURRENT: _recurrent_peer,
    "PPO feedforward": lambda: _ours("ppo", "feedforward"),
    "PPO lstm": lambda: _ours("ppo", "lstm"),
    "PPO srwm": lambda: _ours("ppo", "srwm"),
    "IMPALA srwm": lambda: _ours("impala", "srwm"),
}


def run_subject(name: str, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    """Train for `rollouts` rollouts: steps/s of the fastest, and the process's peak memory in GB."""
    if keep_buffers:
        keep_large_buffers()
    agent = SUBJECTS[name]()
    seconds = []
    for _ in range(rollouts):
        before, began = agent.num_timesteps if seconds else 0, time.perf_counter()
        agent.learn(1, reset_num_timesteps=not seconds)
        seconds.append((time.perf_counter() - began) / (agent.num_timesteps - before))
    return {"steps/s": 1.0 / min(seconds), "peak GB": peak_memory()["peak_gb"]}


def _in_a_process(name: str, rollouts: int, keep_buffers: bool) -> dict[str, float]:
    words = [
        sys.executable,
        "-m",
        "benchmarks.peers",
        "--subject",
        name,
        str(rollouts),
        str(int(keep_buffers)),
    ]
    words.append(str(torch.get_num_threads()))
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def measure(quick: bool = False) -> list[Figure]:
    """Speed and peak memory of ours against the peers'."""
    rollouts = 1 if quick else 2
    with_setting = {name: _in_a_process(name, rollouts, True) for name in SUBJECTS}
    shipped = {} if quick else {name: _in_a_process(name, 1, False) for name in (PLAIN, RECURRENT)}

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
        torch.set_num_threads(int(sys.argv[5]))
        print(json.dumps(run_subject(sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))))
    else:
        sys.exit(main("Peers", measure))
