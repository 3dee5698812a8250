"""eval.py as users start it: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from agents import IMPALA
from envs import ProcgenVecEnv
from policies import ImpalaEncoderConfig, PolicyConfig, core_config

EVAL = Path(__file__).resolve().parent.parent / "eval.py"


def eval_py(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EVAL), *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of an LSTM agent with eight slots."""
    env = ProcgenVecEnv(["fruitbot", "starpilot"], 8, num_threads=0)
    config = PolicyConfig(
        core_config("lstm", hidden=8), ImpalaEncoderConfig(hidden=8, channels=(4,)), bptt_span=5
    )
    agent = IMPALA(config, env, seed=0, device="cpu")
    env.close()
    with torch.no_grad():
        agent.policy.actor.weight.mul_(20)
    agent.experiment = {"games": ["fruitbot", "starpilot"], "mode": "easy", "levels": "train"}
    agent.save(tmp_path / "runs" / "mine" / "checkpoints" / "step_000000000000.ckpt")
    return tmp_path


def test_a_run_is_scored_and_filmed(run: Path) -> None:
    words = "runs/mine --splits train 300:310 --episodes 3 --sample --json scores.json --video film.mp4"
    done = eval_py([*words.split(), "--video-seconds", "1"], run)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("fruitbot", "starpilot", "all games", "trained on", "unseen", "sampled actions; 3 episodes"):
        assert part in done.stdout
    assert "memory reset at each episode's start, gradient horizon 5 of 50 steps" in done.stdout
    data = json.loads((run / "scores.json").read_text())
    assert data["checkpoint"] == "runs/mine/checkpoints/step_000000000000.ckpt"
    assert [(score["game"], score["split"]) for score in data["scores"]] == [
        ("fruitbot", "train"),
        ("starpilot", "train"),
        ("fruitbot", "300:310"),
        ("starpilot", "300:310"),
    ]
    assert all(len(score["episodes"]["return"]) == 3 for score in data["scores"])
    assert all(300 <= level < 310 for score in data["scores"][2:] for level in score["episodes"]["level"])
    with av.open(str(run / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 15
    assert {path.name for path in run.iterdir()} == {"runs", "scores.json", "film.mp4"}


def test_bad_input_is_one_line_and_code_2(run: Path) -> None:
    done = eval_py(["runs/mine", "--games", "mzae", "--json", "none/scores.json"], run)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: 2 problems: ")
    assert done.stderr.count("\n") == 1
