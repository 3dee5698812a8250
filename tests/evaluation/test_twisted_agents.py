"""What is trained with frames withheld is scored, recorded and watched so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import IMPALA
from evaluation import Protocol, evaluate
from evaluation.command_line import Options, make_protocol
from evaluation.loading import TrainingInfo, load_agent
from evaluation.recording.replay import play_candidates
from evaluation.streams import StreamProtocol, play_streams
from evaluation.watch.session import Session
from evaluation.watch.side import SessionConfig, WatchedAgent
from experiments.launch import train
from helpers import tiny_run

ALL_BUT_FIRST = "blank after 1"


def shares_of_black(agent: IMPALA, play: Any) -> tuple[float, float]:
    """Of the first frames of episodes, and of the others, how many the policy saw black while `play` went on."""
    black: dict[bool, list[bool]] = {True: [], False: []}

    def look(policy: Any, inputs: Any) -> None:
        rgb, _, _, starts = inputs
        for image, first in zip(rgb.flatten(0, 1), starts.flatten(), strict=True):
            black[bool(first)].append(not image.any())

    hook = agent.policy.register_forward_pre_hook(look)
    play()
    hook.remove()
    return float(np.mean(black[True])), float(np.mean(black[False]))


@pytest.mark.parametrize(("twist", "expected"), [(None, (0.0, 0.0)), (ALL_BUT_FIRST, (0.0, 1.0))])
def test_scores_and_replays_are_played_with_the_frames_withheld(
    agent: IMPALA, twist: str | None, expected: tuple[float, float]
) -> None:
    protocol = Protocol(("leaper",), splits=("test1",), episodes=2, num_envs=2, twist=twist)
    assert shares_of_black(agent, lambda: evaluate(agent, protocol)) == expected
    assert shares_of_black(agent, lambda: play_candidates(agent.policy, "leaper", 2, protocol)) == expected


def test_streams_are_played_with_the_frames_withheld(agent: IMPALA) -> None:
    protocol = StreamProtocol(
        ("leaper", "chaser"), streams=1, tasks=1, task_duration="1 episode", reset_conditions=("episode",)
    )
    assert play_streams(agent, protocol) != play_streams(agent, replace(protocol, twist=ALL_BUT_FIRST))


def test_protocols_follow_the_training_of_the_agent() -> None:
    assert make_protocol(Options("x"), TrainingInfo(("maze",), twist="blank 2 of 4")).twist == "blank 2 of 4"
    assert "twist: blank 2 of 4" in Protocol(("maze",), twist="blank 2 of 4").text
    assert "twist 'x': give blank K of P" in "; ".join(Protocol(("maze",), twist="x").problems())


def test_the_viewer_shows_what_the_agent_sees(agent: IMPALA) -> None:
    config = SessionConfig(("leaper",), twist=ALL_BUT_FIRST)
    session = Session([WatchedAgent(agent, "it", TrainingInfo())], config, 2**20)
    try:
        pictures = [session.advance().sides[0][0].rgb for _ in range(3)]
    finally:
        session.close()
    assert [bool(picture.any()) for picture in pictures] == [True, False, False]


def test_a_run_keeps_the_setting_in_its_checkpoint_and_scores_by_it(tmp_path: Path) -> None:
    changes = {"evaluation_episodes": 1, "evaluation_splits": ["test1"]}
    config = tiny_run(twist="blank 2 of 4", total_steps=80, games=["leaper", "chaser"], **changes)
    assert train(config, tmp_path / "run") == 0
    loaded = load_agent(str(tmp_path / "run"), "cpu", [])
    assert loaded is not None
    assert loaded.training.twist == "blank 2 of 4"
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert scores["protocol"]["twist"] == "blank 2 of 4"
