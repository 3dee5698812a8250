"""Words for the options of a command line: ones that are right, at the edge of what is right, and not of this world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from benchmarks.commands import RIGHT
from common.cli import FLAG
from common.config import OneOf, Option, Range

ODD = (
    *(
        "",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "3.5",
        "-0",
        "1e-320",
        "1e308",
        "1e400",
        "-1e300",
        "nan",
        "inf",
        "-inf",
    ),
    *(
        "65535",
        "65536",
        "65537",
        "16384",
        "16385",
        "1000000",
        "1000000001",
        "9" * 13,
        "9" * 14,
        "9" * 30,
        "9" * 5000,
    ),
    *(
        "1e9",
        "1e12",
        "1e13",
        "0x10",
        "1_000",
        "1__0",
        "\u0665",
        "true",
        "none",
        "None",
        "NONE",
        "null",
        "[]",
        "{}",
    ),
    *("episode", "never", "auto", "cpu", "cuda", "cuda:99", "cuda:-1", "cuda:9999999999999", "meta", "mps"),
    *(
        "..",
        ".",
        "~",
        "~nobody",
        "/",
        "/dev/null",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "a/b/c",
        "a\nb",
        "a b",
    ),
    *(
        "\u202e",
        "\x1b[2J",
        "\udcff",
        "ä",
        "\U0001f600",
        "a" * 300,
        "a" * 100_000,
        "'",
        '"',
        "$(true)",
        "%s",
        "%",
    ),
    *(
        "0:1",
        "5:5",
        "0:2147483647",
        "0:2147483646",
        "0:9999999999999",
        "0" * 5000 + ":1",
        "-1:5",
        "train",
        "all",
    ),
    *("bigfish", "maze", "all16", "easy6", "srwm", "impala", "easy", "memory"),
)
"""Values of any kind."""

VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2.5, 1e300, 10**30, True, [], [1], ["a"] * 500, [[[]]], {}, {"a": {"b": 1}}, "x" * 10_000),
)
"""Of JSON and TOML."""


FAIR: dict[str, Sequence[str]] = {
    **RIGHT,
    "games": ("bigfish", "dodgeball"),
    "blank": ("none", "4 of 8", "after 1"),
    "retention": ("none", "clear"),
    "replay_state": ("stored", "fresh", "2"),
    "split": ("train", "test1", "test2", "all", "5:9"),
    "splits": ("train", "test1", "0:5"),
    "level": ("0", "7", "199", "2147483646"),
    "modification": ("on", "frozen", "5"),
    "versus_modification": ("on", "frozen"),
    "start": ("none",),
    "sequence.tasks": ("bigfish", "dodgeball"),
    "host": ("127.0.0.1", "localhost"),
    "title": ("A title", "\u00fc"),
    "baseline": ("none",),
    "task_duration": ("4 episodes", "20 steps", "1 episode"),
    "only": ("*",),
    "cluster_options": (),
    "runs": ("runs",),
    "json": ("scores.json",),
    "video": ("none", "film.gif"),
    "trace": ("trace.npz",),
    "out": ("report",),
    "port": ("0",),
    "speed": ("0", "1", "15", "60"),
    "episodes": ("1", "2"),
    "evaluation_episodes": ("none", "1"),
    "recovery_episodes": ("none", "1"),
    "boundary_episodes": ("1",),
    "evaluate_every_steps": ("40", "none"),
    "first_stage_steps": ("40", "80"),
    "cycles": ("1", "2"),
    "sequence.evaluation_episodes": ("1",),
    "gated_apart": (),
    "every": ("none",),
    "video_seconds": ("0.2", "1"),
    "video_candidates": ("1", "2"),
    "video_every": ("40", "none"),
    "num_envs": ("2", "4", "8"),
    "total_steps": ("1", "40", "80", "99"),
    "steps_per_task": ("40", "80"),
    "streams": ("1", "2"),
    "passes": ("1", "2"),
    "keep_checkpoints": ("1", "2", "none"),
    "channels": ("4", "1", "8"),
    "hidden": ("8", "1", "33"),
    "feedforward": ("8", "1", "33"),
    "history_mb": ("1", "16"),
    "tasks.gated_share": ("0",),
    "tasks.heads": ("shared",),
    "gated_share": ("0", "0.5", "0.9"),
    "decoupled": (),
}
"""Values that are right, by an option's name or the last part of it, where its type and range do not say enough."""


def fair(option: Option, random: Random) -> list[str]:
    """Values that the option takes by itself, of an ordinary size: none for a switch."""
    if _is_switch(option):
        return []
    known = FAIR.get(option.name) or FAIR.get(option.name.rpartition(".")[2])
    if option.choices:
        known = tuple(option.choices)
    elif one_of := next((item for item in option.type.constraints if isinstance(item, OneOf)), None):
        known = known or tuple(one_of.names)
    known = known or _numbers(option, random)
    length = len(option.value) if option.type.is_tuple and option.type.scalar is int else 1
    return [random.choice(known)] * length


def edge(option: Option, random: Random) -> list[str]:
    """A value of the right type at the end of its range, just beyond, or of an odd size or spelling."""
    if _is_switch(option):
        return []
    kind = option.type.scalar
    if kind not in (int, float):
        return [random.choice(("", "none", "all", "0:1", "episode", "auto", "5", "\u00e4", "a b", "/", "."))]
    low, high = bounds(option)
    ends = [f"{end:.17g}" for end in (low, high, low - 1, high + 1, high / 2) if math.isfinite(end)]
    spelled = ("1e0", "+1", " 1", "1_0", "01", "1.0", "2", "64", "999983", "1e9")
    return [random.choice((*ends, *spelled, *(("none",) if option.type.optional else ())))]


def odd(option: Option, random: Random) -> list[str]:
    """Anything at all, in any number."""
    count = random.choice((1, 1, 0, 5)) if option.type.is_tuple else 1
    if _is_switch(option) and random.random() < 0.8:
        count = 0
    return [random.choice(ODD) for _ in range(count)]


def bounds(option: Option) -> tuple[float, float]:
    """The range of a number; without one, from minus to plus infinity."""
    ranges = [item for item in option.type.constraints if isinstance(item, Range)]
    return (ranges[0].low, ranges[0].high) if ranges else (-math.inf, math.inf)


def _is_switch(option: Option) -> bool:
    return option.type.scalar is bool or FLAG in option.type.constraints


def _numbers(option: Option, random: Random) -> tuple[str, ...]:
    low, high = bounds(option)
    if option.type.scalar is int:
        return tuple(str(number) for number in (1, 2, 3, 7) if low <= number <= high)
    drawn = (10 ** random.uniform(-6, 1), random.random(), 1.0)
    return tuple(f"{number:.6g}" for number in drawn if low < number < high) or (f"{high:g}",)
