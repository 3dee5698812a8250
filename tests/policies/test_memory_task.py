"""A task that cannot be solved without memory: name the cue seen at the start of the episode, after a delay.

Cores are used directly, with a linear readout; episodes start at different steps of different streams. Chance
is one in four. What is tested is that memory is used and trained through the unroll, not how well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.registry import build_core
from policies.resets import parse_reset
from small_cores import small_core

CUES = 4
EPISODE = 6  # the cue at the first step, the question at the last
UNROLL, STREAMS = 12, 32
# Some 3300 questions are asked, so an accuracy by chance is 0.25 with a standard deviation below 0.01.
CHANCE_AT_MOST = 0.30
FEATURES = CUES + 1 + 2  # cue, "answer now", two distractors

SIZES = {"width": 32, "heads": 4, "feedforward": 32, "layers": 1, "hidden": 32}


class Batch(NamedTuple):
    """Inputs (T, B, F), episode starts (T, B), targets (T, B) and where they count (T, B)."""

    x: Tensor
    episode_start: Tensor
    target: Tensor
    asked: Tensor


def make_batch(generator: torch.Generator, streams: int = STREAMS) -> Batch:
    offset = torch.randint(EPISODE, (streams,), generator=generator)
    time = torch.arange(UNROLL).unsqueeze(1) + offset
    phase, episode = time % EPISODE, time // EPISODE
    cue_of_episode = torch.randint(CUES, (UNROLL // EPISODE + 2, streams), generator=generator)
    target = cue_of_episode.gather(0, episode)
    episode_start = phase == 0
    x = torch.zeros(UNROLL, streams, FEATURES)
    x[..., :CUES] = F.one_hot(target, CUES) * episode_start.unsqueeze(-1)
    x[..., CUES] = (phase == EPISODE - 1).float()
    x[..., CUES + 1 :] = torch.randn(UNROLL, streams, 2, generator=generator)
    seen = episode_start.cumsum(0) > 0  # an episode that began before the unroll showed its cue to nobody
    return Batch(x, episode_start, target, (phase == EPISODE - 1) & seen)


def accuracy_after_training(name: str, reset: str, steps: int, **kwargs: Any) -> float:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    core = build_core(small_core(name, **SIZES), FEATURES, parse_reset(reset), **kwargs)
    readout = nn.Linear(core.output_size, CUES)
    parameters = [*core.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        batch = make_batch(generator)
        y, _ = core(batch.x, core.initial_state(STREAMS), batch.episode_start)
        loss = F.cross_entropy(readout(y)[batch.asked], batch.target[batch.asked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    test = make_batch(generator, streams=2000)
    with torch.no_grad():
        y, _ = core(test.x, core.initial_state(2000), test.episode_start)
    hits = readout(y).argmax(-1)[test.asked] == test.target[test.asked]
    return hits.double().mean().item()


@pytest.mark.parametrize(
    ("name", "steps"), [("lstm", 150), ("deltanet", 150), ("srwm", 300), ("sr_delta", 300)]
)
def test_recurrent_cores_solve_it(name: str, steps: int) -> None:
    assert accuracy_after_training(name, "episode", steps) > 0.95


@pytest.mark.parametrize("name", ["feedforward", "fake_srwm"])
def test_cores_without_memory_stay_at_chance(name: str) -> None:
    assert accuracy_after_training(name, "episode", 300) < CHANCE_AT_MOST


def test_srwm_that_forgets_during_the_delay_stays_at_chance() -> None:
    # A span of 3 clears the matrix at steps 0 and 3 of each episode; the question comes at step 5.
    assert accuracy_after_training("srwm", "3", 300) < CHANCE_AT_MOST


def test_srwm_whose_updates_are_not_trained_stays_at_chance() -> None:
    # With a horizon of one step, as in the published code, nothing ever trains what the matrix writes.
    assert accuracy_after_training("srwm", "episode", 300, bptt_span=1) < CHANCE_AT_MOST
