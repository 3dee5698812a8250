"""Command lines of train.py drawn at random: each must run, or end in one clear line and exit code 2.

$ python -m benchmarks.commands --examples 500 --out benchmarks/results/commands.json

Sizes are kept tiny and every run two rollouts long. Needs the package's test extra: hypothesis draws the commands.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st

from agents import ALGORITHMS, read_checkpoint
from benchmarks.machine import describe_machine
from common.cli import run_command, run_with_options
from common.config import field_types
from envs import GAMES
from experiments import launch
from experiments.presets import PRESETS
from policies import CORES, core_config
from records.directory import RunDirectory

NONSENSE = (
    *(
        "",
        "none",
        "-1",
        "0",
        "1e400",
        "nan",
        "abc",
        "1.5",
        "9" * 25,
        "ä",
        "'",
        "--",
        "-",
        "[1]",
        "true",
        "a b",
    ),
    *("5:5", "9:1", "x:y", "esay", "float16", "cuda:99", "tpu", "log", "300", "--nosuch", "--core.x=1"),
)
RIGHT = {
    "reset": ("episode", "never", "1", "3"),
    "bptt_span": ("none", "1", "2"),
    "precision": ("float32", "bfloat16"),
    "mode": ("easy", "hard", "exploration", "extreme", "memory"),
    "levels": ("train", "test1", "all", "0:5"),
    "seed": ("0", "7", "123456"),
    "device": ("cpu", "auto"),
    "env_threads": ("0", "1", "4"),
    "env_groups": ("1", "none"),
    "evaluation_splits": ("train", "test1"),
    "reward_transform": ("clip", "normalize", "none"),
    "on_nan": ("stop", "skip"),
    "batch_unrolls": ("1", "none"),
    "minibatches": ("1",),
    "rollout_lag": ("0", "1"),
    "discount": ("0.9", "1", "0"),
    "gae_lambda": ("0", "0.5", "1"),
    "trace_lambda": ("0", "0.5", "1"),
    "value_clip_range": ("none", "0.2"),
    "implementation": ("auto", "naive"),
    "heads": ("1", "2", "4"),
    "layers": ("1", "2"),
    "width": ("8", "16"),
    "log_every_steps": ("1", "50"),
}
BY_TYPE = {int: ("1", "2", "8"), float: ("0.5", "1", "0.001", "1e-8"), bool: ("",), str: ("auto",)}
OTHER = (
    *(
        "mode",
        "levels",
        "seed",
        "reset",
        "bptt_span",
        "precision",
        "device",
        "log_every_steps",
        "keep_checkpoints",
    ),
    *("checkpoint_every_steps", "checkpoint_every_minutes", "watchdog_minutes", "env_threads", "env_groups"),
    "evaluation_splits",
)
AGENT_SIZES = {"rollout_steps": "", "minibatches": "1", "batch_unrolls": "none"}
"""Of whichever algorithm has them, so that a run is two rollouts long; "" for the steps of a rollout."""
WRONG = 0.02
"""Share of words that are drawn from `NONSENSE` instead."""


def command(random: Random) -> list[str]:
    """The words of a command line, which may be right or wrong. Sizes are small and the run is two rollouts long."""

    def one_of(values: Sequence[str]) -> str:
        return random.choice(NONSENSE if random.random() < WRONG else values)

    def some_of(kind: type[Any], prefix: str, without: Sequence[str]) -> list[str]:
        types = {name: wanted.scalar for name, wanted in field_types(kind).items() if name not in without}
        words: list[str] = []
        for name in random.sample(sorted(types), min(len(types), random.randint(0, 3))):
            if types[name] is bool:
                words.append(_option(f"{prefix}{random.choice(('', 'no-'))}{name}"))
            else:
                words += [_option(prefix + name), one_of(RIGHT.get(name) or BY_TYPE[types[name]])]
        return words

    policy, algorithm = one_of(tuple(CORES)), one_of(tuple(ALGORITHMS))
    games = random.sample(sorted(GAMES), random.randint(1, 2))
    if random.random() < WRONG:
        games.append(random.choice(("bigfsh", games[0], "", "all16")))
    num_envs, length = len(games) * random.randint(1, 3), random.randint(1, 4)
    presets = tuple(name for name, preset in PRESETS.items() if not preset.config.sequence.active)
    words = [one_of(presets), "--policy", policy, "--algorithm", algorithm, "--mode", "easy"]
    words += ["--games", *games, "--num-envs", str(num_envs), "--total-steps", str(2 * num_envs * length)]
    words += "--encoder.channels 4 --encoder.hidden 8 --env-threads 0 --torch-threads 1 --device cpu".split()
    words += "--evaluation-episodes none --no-videos".split()
    if policy in CORES:
        core = core_config(policy)
        sizes = [name for name in field_types(type(core)) if type(getattr(core, name)) is int]
        for name in sizes:
            words += [_option(f"core.{name}"), {"layers": "1", "heads": "2"}.get(name, "8")]
        words += some_of(type(core), "core.", ())
    if algorithm in ALGORITHMS:
        kind = ALGORITHMS[algorithm].config_class
        for name in field_types(kind):
            if name in AGENT_SIZES:
                words += [_option(f"agent.{name}"), AGENT_SIZES[name] or str(length)]
        words += some_of(kind, "agent.", ("rollout_steps",))
    for name in random.sample(OTHER, random.randint(0, 4)):
        words += [_option(name), one_of(RIGHT.get(name, ("1", "2", "none")))]
    if random.random() < WRONG:
        words.insert(random.randrange(len(words)), random.choice(NONSENSE))
    return words


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass
class Tally:
    """What has become of the commands."""

    tried: int = 0
    ran: int = 0
    refused: int = 0


def check(words: list[str], folder: Path, tally: Tally) -> None:
    """Run the command; raises AssertionError if it ends otherwise than promised."""
    run = RunDirectory(folder / "run")
    shutil.rmtree(run.path, ignore_errors=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(lambda: launch.main([*words, "--run-dir", str(run.path)]))
    tally.tried += 1
    said = err.getvalue()
    if code == 0:
        tally.ran += 1
        updates = read_checkpoint(run.newest_checkpoint())["learner"]["updates"]
        assert updates >= 2, f"{words} made {updates} updates"
    else:
        tally.refused += 1
        assert code == 2, f"{words} ended with {code}: {said}"
        assert said.startswith("error: "), f"{words} said {said!r}"
        assert said.count("\n") == 1, f"{words} said {said!r}"
        assert not run.path.exists(), f"{words} was refused and left a directory"


def try_commands(examples: int, folder: Path) -> Tally:
    """Draw and run commands, always the same ones; raises for the first that does not end as promised."""
    tally = Tally()

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
    )
    @hypothesis.given(st.integers(0, 2**63 - 1))
    def attempt(seed: int) -> None:
        check(command(Random(seed)), folder, tally)

    attempt()
    return tally


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        examples: number of command lines.
        out: file for the result; none only prints it.
    """

    examples: int = 500
    out: Path | None = None


def main(options: Options) -> None:
    """Try the commands and tell how many ran."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        tally = try_commands(options.examples, Path(folder))
    result = {
        "command": f"python -m benchmarks.commands --examples {options.examples}",
        "machine": describe_machine(),
        "tried": tally.tried,
        "ran_two_updates": tally.ran,
        "refused_in_one_line": tally.refused,
        "tracebacks": 0,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_with_options(Options, main, "python -m benchmarks.commands"))
