from __future__ import annotations

import pytest

from benchmarks.scaling import Link, efficiency, exchange_seconds, sum_seconds


def test_a_ring_passes_everything_twice() -> None:
    without_latency = Link(bandwidth=1e6, latency=0.0)
    # Two processes send half of it and get half of it, twice; with many, everything passes each of them twice.
    assert sum_seconds(1_000_000, 2, without_latency) == pytest.approx(1.0)
    assert sum_seconds(1_000_000, 1000, without_latency) == pytest.approx(2.0, rel=2e-3)
    assert sum_seconds(0, 5, Link(1e6, 0.25)) == pytest.approx(2.0)
    assert sum_seconds(1_000_000, 1, without_latency) == 0.0


def test_what_the_exchange_costs_is_lost() -> None:
    link = Link(1e9, 1e-4)
    cost = exchange_seconds(4_000_000, 8, link)
    assert efficiency(cost, 4_000_000, 8, link) == pytest.approx(0.5)
    assert efficiency(1e9, 4_000_000, 8, link) == pytest.approx(1.0)
    assert efficiency(0.1, 4_000_000, 32, link) < efficiency(0.1, 4_000_000, 8, link) < 1.0
