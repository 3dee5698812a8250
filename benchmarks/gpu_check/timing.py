"""Times by the device's own events, CUDA graphs, and where the device's time goes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(run: Callable[[], object], device: torch.device, budget: float = 1.0) -> float:
    """Median time of one call, after three that are not counted; about `budget` seconds of calls."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    calls = max(5, min(200, int(budget / (time.perf_counter() - began))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize(device)
    times: list[float] = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
    return statistics.median(times)


def as_graph(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run` as a CUDA graph, which launches all of its kernels at once."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_rate(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.randn(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / (1e-3 * milliseconds(lambda: target.copy_(source), device))


def longest_kernels(run: Callable[[], object], device: torch.device, count: int = 12) -> list[dict[str, Any]]:
    """Where the device's time of one call goes: kernels by total time."""
    run()
    torch.cuda.synchronize(device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize(device)
    rows = [
        {"kernel": row.key[:90], "calls": row.count, "microseconds": row.self_device_time_total}
        for row in profile.key_averages()
        if row.self_device_time_total > 0 and str(row.device_type).endswith("CUDA")
    ]
    return sorted(rows, key=lambda row: -float(row["microseconds"]))[:count]
