"""Traces of everything that happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import IMPALA, Actor
from envs import ProcgenVecEnv
from evaluation import Progress, Protocol, Recording, read_trace, record
from evaluation.recording.trace import trace_bytes


def test_a_trace_holds_everything(agent: IMPALA, tmp_path: Path) -> None:
    games, path = ["leaper", "chaser"], tmp_path / "play.npz"
    recording = Recording(video_seconds=70 / 15, trace=str(path), trace_frames=True)
    protocol = Protocol(tuple(games), splits=("test1",), seed=5)
    record(agent, protocol, recording, meta={"checkpoint": "it"})
    assert [file.name for file in tmp_path.iterdir()] == ["play.npz"]
    about, arrays = read_trace(path)
    assert about["games"] == games
    assert (about["format"], about["version"], about["checkpoint"]) == ("procgen-srwm trace", 2, "it")
    with np.load(path, allow_pickle=False) as file:  # as anybody would read it
        assert json.loads(str(file["meta"])) == about
    env = ProcgenVecEnv(games, 2, levels="test1", seed=5)
    observation: Any = env.reset()
    starts, actor = np.ones(2, dtype=bool), Actor(agent.policy, 2, agent.device, torch.Generator())
    for t in range(70):
        assert np.array_equal(arrays["frames"][t], observation["rgb"])
        assert arrays["levels"][t].tolist() == env.current_levels
        assert arrays["starts"][t].tolist() == starts.tolist()
        chosen = actor.step(observation, starts, deterministic=True)
        np.testing.assert_allclose(arrays["values"][t], chosen.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            arrays["probabilities"][t], chosen.logits.softmax(-1), rtol=1e-5, atol=1e-6
        )
        weights = torch.from_numpy(arrays["weights/layer0/shift"][t])
        torch.testing.assert_close(weights, actor.state["layer0/shift"])
        norms = weights.flatten(1).norm(dim=1)
        np.testing.assert_allclose(arrays["readings/layer0/shift_norm"][t], norms, rtol=1e-5)
        observation, rewards, starts, _ = env.step(chosen.actions.numpy())
        assert arrays["rewards"][t].tolist() == rewards.tolist()
        assert arrays["ended"][t].tolist() == starts.tolist()
    env.close()
    assert (
        arrays["returns"][1:].tolist()
        == np.where(arrays["ended"][:-1], 0, arrays["returns"][:-1] + arrays["rewards"][:-1]).tolist()
    )
    assert arrays["active"].all()
    assert arrays["ended"].any()


def test_weights_may_be_kept_now_and_then(agent: IMPALA, tmp_path: Path) -> None:
    traces = {}
    for every in (1, 4, 0):
        recording = Recording(
            video_seconds=10 / 15, trace=str(tmp_path / "play.npz"), trace_weights_every=every
        )
        record(agent, Protocol(("maze",)), recording)
        about, traces[every] = read_trace(tmp_path / "play.npz")
        assert about["weights_every"] == every
        size = sum(array.nbytes for array in traces[every].values())
        assert trace_bytes(agent.policy, 1, 10, weights_every=every) == pytest.approx(size, rel=0.3)
    weights = {name for name in traces[1] if name.startswith("weights/")}
    assert weights
    for name, array in traces[1].items():
        if name in weights:
            assert np.array_equal(traces[4][name], array[::4])
            assert name not in traces[0]
        else:
            assert np.array_equal(traces[4][name], array)
            assert np.array_equal(traces[0][name], array)
    assert Recording(trace_weights_every=2).problems() == [
        "--trace-weights-every is about a trace: name its file with --trace"
    ]


def test_a_trace_that_fails_leaves_nothing(agent: IMPALA, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise KeyboardInterrupt

    recording = Recording(video_seconds=0.3, trace=str(tmp_path / "play.npz"))
    with pytest.raises(KeyboardInterrupt):
        record(agent, Protocol(("maze",)), recording, report=fail)
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match="not a trace"):
        read_trace(tmp_path / "other.npz")
