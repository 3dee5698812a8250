"""The exchange of one process, and of several that are forks of this one."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.distributed import joined
from agents.exchange import Exchange
from agents.losses import explained_variance, normalized
from agents.rewards import NormalizedReward
from benchmarks.faults.process import load_everything
from benchmarks.team import Team, together
from common.cli import run_command
from common.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load_everything()


def test_what_three_processes_tell_one_another() -> None:
    def tell(rank: int) -> dict[str, Any]:
        with joined() as exchange:
            weights = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
            weights[0].grad = torch.full((2, 3), float(rank + 1))
            exchange.sum_gradients(weights)
            generator = torch.Generator().manual_seed(rank)
            exchange.agree_on(generator)
            copied = [torch.full((3,), float(rank)), torch.empty(0)]
            exchange.copy_first(copied)
            value = {"rank": rank, "array": np.arange(rank), "tensor": torch.ones(rank), "text": "ä"}
            first = exchange.gather_first(value)
            return {
                "gradient": weights[0].grad,
                "none": weights[1].grad,
                "any": [exchange.any(False), exchange.any(rank == 2)],
                "total": exchange.total(rank + 0.5),
                "mean": exchange.mean(torch.tensor([[float(rank)]]), torch.tensor([float(rank)])),
                "drawn": torch.rand(1, generator=generator),
                "copied": copied[0],
                "gathered": exchange.gather(value),
                "first": None if first is None else [one["rank"] for one in first],
                "told": exchange.on_first(lambda: exchange.rank + 10),
                "part": exchange.part,
                "all": exchange.wait_for_all(rank),
            }

    found = together(3, tell)
    for rank, one in enumerate(found):
        assert torch.equal(one["gradient"], torch.full((2, 3), 6.0))
        assert one["none"] is None
        assert one["any"] == [False, True]
        assert one["total"] == 4.5
        assert one["mean"].item() == pytest.approx((0 + 1 + 4) / 3)
        assert torch.equal(one["drawn"], found[0]["drawn"])
        assert torch.equal(one["copied"], torch.zeros(3))
        for other, value in enumerate(one["gathered"]):
            assert (value["rank"], value["text"]) == (other, "ä")
            np.testing.assert_array_equal(value["array"], np.arange(other))
            assert torch.equal(value["tensor"], torch.ones(other))
        assert one["first"] == ([0, 1, 2] if rank == 0 else None)
        assert one["told"] == 10
        assert one["part"] == (rank, 3)
        assert one["all"] == [0, 1, 2]


def test_errors_are_everyones() -> None:
    def fail(rank: int) -> list[str]:
        def disk_full() -> None:
            raise OSError(28, "No space left on device", "there")

        def alone() -> None:
            if rank == 1:
                raise UserError("only here")

        found = []
        with joined() as exchange:
            for action in (
                lambda: exchange.on_first(disk_full),
                lambda: exchange.together(alone),
                lambda: exchange.together(lambda: None),
            ):
                try:
                    action()
                    found.append("well")
                except (OSError, UserError) as error:
                    found.append(f"{type(error).__name__}: {error}")
        return found

    one, other = together(2, fail)
    assert (
        one
        == other
        == [
            "OSError: [Errno 28] No space left on device: 'there'",
            "UserError: only here",
            "well",
        ]
    )


def test_a_thread_that_plays_and_one_that_learns_exchange_at_the_same_time() -> None:
    def both(rank: int) -> list[float]:
        with joined() as exchange:
            acting, found = exchange.for_acting(), [0.0, 0.0]

            def play() -> None:
                for _ in range(50):
                    found[0] += acting.total(1.0)

            thread = threading.Thread(target=play)
            thread.start()
            for _ in range(50):
                found[1] += exchange.total(10.0)
            thread.join()
            return found

    assert together(2, both) == [[100.0, 1000.0]] * 2


@pytest.mark.parametrize("how", ["leaves", "hangs"])
def test_nobody_waits_for_ever_and_one_says_so(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.distributed.GRACE", timedelta())

    def work(rank: int) -> int:
        def wait() -> int:
            with joined() as exchange:
                shorter = exchange.for_run("cpu", 0.05)
                if rank == 2:
                    time.sleep(8 if how == "hangs" else 0)
                    os._exit(9)
                shorter.any(True)
                return 0

        return run_command(wait)

    team = Team(3, work, tmp_path)
    assert team.wait() == [1, 1, 9]
    said = "".join(team.said())
    assert said.count("error: another of the 3 processes has left or hangs") == 1


def test_statistics_of_a_batch_are_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    advantages, targets = torch.randn(2, 5, 6, generator=generator) + torch.tensor([50.0, 3.0]).view(2, 1, 1)

    def part(rank: int) -> list[torch.Tensor]:
        with joined() as exchange:
            own = slice(3 * rank, 3 * rank + 3)
            return [
                normalized(advantages[:, own], exchange.sum),
                explained_variance(advantages[:, own], targets[:, own], exchange.sum),
            ]

    (left, one), (right, other) = together(2, part)
    expected = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    torch.testing.assert_close(torch.cat([left, right], 1), expected, rtol=1e-4, atol=1e-5)
    assert one == other
    assert float(one) == pytest.approx(float(explained_variance(advantages, targets)), rel=1e-4)


def test_running_statistics_of_rewards_are_those_of_one_process() -> None:
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(30, 4)).astype(np.float32)
    dones = rng.random((30, 4)) < 0.2
    games = ("maze", "heist", "heist", "ninja")
    alone = NormalizedReward(4, 0.9)
    expected = [
        alone.rollout(rewards[t : t + 15], dones[t : t + 15], [games] * 15, Exchange()) for t in (0, 15)
    ]

    def part(rank: int) -> tuple[list[Any], Any]:
        own = slice(2 * rank, 2 * rank + 2)
        transform = NormalizedReward(2, 0.9)
        with joined() as exchange:
            found = [
                transform.rollout(
                    rewards[t : t + 15, own], dones[t : t + 15, own], [games[own]] * 15, exchange
                )
                for t in (0, 15)
            ]
        return found, transform.state()["statistics"]

    (left, statistics), (right, other) = together(2, part)
    np.testing.assert_allclose(np.concatenate([left, right], 2), expected, rtol=1e-6)
    assert statistics == other
    for game, values in alone.state()["statistics"].items():
        assert statistics[game] == pytest.approx(values, rel=1e-12)


def test_one_process_has_nothing_to_tell() -> None:
    with joined() as exchange:
        assert type(exchange) is Exchange
        assert exchange.for_acting() is exchange.for_run("cpu", 1.0) is exchange
        assert exchange.gather(3) == exchange.wait_for_all(3) == exchange.gather_first(3) == [3]
        assert exchange.part == (0, 1)
        assert exchange.is_first
