"""Train one agent on one game and keep its learning curve, to hold against the published ones.

    python -m benchmarks.learning_curve --policy srwm --game starpilot --out curve.json

The curve is the mean training return over the last 100 episodes, as the published curves are.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3.common.callbacks import BaseCallback

from agents import IMPALA
from benchmarks.machine import describe_machine
from envs import ProcgenVecEnv
from policies import policy_config, to_json


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        out: JSON file to write, and rewrite while training goes on; the checkpoint lies beside it.
        policy: name of the core.
        game: the only game.
        steps: environment steps.
        slots: environments.
        batch_unrolls: unrolls in one update.
        precision: of the encoder.
        seed: of everything random.
        threads: of the CPU.
    """

    out: Path
    policy: str = "srwm"
    game: str = "starpilot"
    steps: int = 1_000_000
    slots: int = 64
    batch_unrolls: int | None = None
    precision: str = "float32"
    seed: int = 0
    threads: int = 2


class CurveWriter(BaseCallback):
    """Rewrites the JSON file after each rollout, so that a run that is cut short leaves its curve."""

    def __init__(self, settings: Settings, record: dict[str, Any]) -> None:
        super().__init__()
        self._settings = settings
        self._record = record
        self._began = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        returns = self.model.episode_returns  # type: ignore[attr-defined]  # an Agent
        if self._settings.game not in returns:
            return
        self._record["curve"].append(
            {
                "steps": self.model.num_timesteps,
                "seconds": round(time.monotonic() - self._began),
                "return": round(returns[self._settings.game], 3),
            }
        )
        self._settings.out.write_text(json.dumps(self._record, indent=1) + "\n")


def main() -> None:
    """Train as the command line says."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(settings.threads)
    policy = policy_config(settings.policy, precision=settings.precision)
    env = ProcgenVecEnv(settings.game, num_envs=settings.slots, seed=settings.seed)
    agent = IMPALA(policy, env, seed=settings.seed, device="cpu", batch_unrolls=settings.batch_unrolls)
    record = {
        "command": f"python -m benchmarks.learning_curve {' '.join(sys.argv[1:])}",
        "machine": describe_machine(),
        "agent": asdict(agent.config),
        "policy": to_json(policy),
        "curve": [],
    }
    agent.learn(settings.steps, CurveWriter(settings, record))
    agent.save(settings.out.with_suffix(".ckpt"))


if __name__ == "__main__":
    main()
