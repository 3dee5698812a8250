"""Command lines of strangers: every program of the project, with values that are huge, odd or of another world.

$ python -m benchmarks.odd_commands --examples 2000 --out benchmarks/results/odd_commands.json

Each command must end by itself, in one clear line and with nothing left behind, or work; what still works after ten
seconds of computing must leave when it is asked to. Each is a process of its own with limits of time and memory.
`benchmarks.commands` tries the ordinary ones.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Annotated, Any

from agents import ALGORITHMS
from agents.retention import RETENTIONS
from benchmarks.commands import command as ordinary_command
from benchmarks.faults.process import load_everything, tiny_run
from benchmarks.machine import describe_machine
from benchmarks.odd_words import ODD, VALUES, edge, fair, odd
from common.cli import run_command, run_with_options
from common.config import Option, Range, options
from evaluation import command_line as scoring
from evaluation.report import command_line as report
from evaluation.watch import command_line as watch
from experiments import command_line, launch
from experiments.suites import command_line as suite
from experiments.suites.definition import shipped
from policies import CORES, ENCODERS
from records.config import TrainConfig, from_json

CPU_SECONDS = 10.0
"""Of computing, after which a command is asked to leave, and within which it has left then."""
TRAINING_SECONDS = 4.0
"""The former for one that trains: a long run looks like a short one."""
PATIENCE = 60.0
"""Seconds of the clock for both, since the machine has other work."""
MEMORY = 6 << 30
LONGEST_LINE = 2200
SERVES = b"Watching at"
"""What a program says that goes on until it is asked to leave."""

SMALL = (
    "--games bigfish dodgeball --num-envs 4 --total-steps 40 --env-threads 0 --torch-threads 1 --device cpu "
    "--agent.rollout-steps 10 --evaluation-episodes none --no-videos"
).split()
SIZES = {
    "core.width": "8",
    "core.heads": "2",
    "core.feedforward": "8",
    "core.layers": "1",
    "encoder.channels": "4",
    "encoder.hidden": "8",
    "agent.minibatches": "1",
    "agent.batch_unrolls": "none",
}
"""Further ones, which not every core, encoder and algorithm has."""
SEQUENCE = "--sequence.tasks bigfish dodgeball --sequence.steps-per-task 40".split()
APART = (
    "policy",
    "algorithm",
    "encoder",
    "games",
    "num_envs",
    "total_steps",
    "evaluation_episodes",
    "videos",
    "levels",
    "device",
)
"""Settings of which most values are wrong beside those of `SMALL`; they are drawn in `plain`."""
DEFAULTS = {option.name: option for option in options(TrainConfig())}
RESUMED = list(options(command_line.Resume()))[1:]
OUTPUTS = ("--json", "--video", "--trace", "--out", "--run-dir", "--runs", "--config", "--resume")


@dataclass(frozen=True)
class Command:
    """A program and its words, and whether it is meant to go on until it is asked to leave."""

    name: str
    main: Callable[[Sequence[str]], int | None]
    words: list[str]


def _drawn_options(known: Sequence[Option], random: Random, most: int = 5) -> list[str]:
    """Some options with values that are right, but for one or two that are odd more often than not."""
    chosen = random.sample(known, min(len(known), random.randint(1, most)))
    strange = random.choice((0, 0, 1, 1, 2))
    words = []
    for number, option in enumerate(chosen):
        values = fair(option, random) if number >= strange else _strange(option, random)
        if len(values) == 1 and random.random() < 0.3:
            words.append(f"{option.flag}={values[0]}")
        else:
            words += [option.flag, *values]
    return words


def _strange(option: Option, random: Random) -> list[str]:
    return edge(option, random) if random.random() < 0.6 else odd(option, random)


def train(random: Random, folder: Path) -> Command:
    """A run of one rollout, but for what is odd in it."""
    kinds: dict[str, Collection[str]] = {"policy": CORES, "algorithm": ALGORITHMS, "encoder": ENCODERS}
    chosen = {name: random.choice(tuple(known)) for name, known in kinds.items()}
    known = {option.name: option for option in options(from_json(chosen))}
    words = ["quick", *(word for name, value in chosen.items() for word in (f"--{name}", value))]
    words += [*_small(known), "--run-dir", "run"]
    alone = [
        option for name, option in known.items() if name not in APART and not name.startswith("sequence.")
    ]
    words += _drawn_options(alone, random)
    if random.random() < 0.1:
        words += [random.choice(OUTPUTS), random.choice(ODD)]
    return Command("train", launch.main, words)


def _small(known: Mapping[str, Option]) -> list[str]:
    """Those of the sizes in `SMALL` that a run with the settings `known` has."""
    words = list(SMALL)
    for option in (known[name] for name in SIZES if name in known):
        words += [option.flag, *[SIZES[option.name]] * (len(option.value) if option.type.is_tuple else 1)]
    return words


def sequence(random: Random, folder: Path) -> Command:
    """A run of tasks one after another, but for what is odd in it."""
    method, told = random.choice(tuple(RETENTIONS)), random.choice(("hidden", "told"))
    words = [
        "quick",
        *_small(DEFAULTS),
        *SEQUENCE,
        "--run-dir",
        "run",
        "--retention",
        method,
        "--tasks.id",
        told,
    ]
    del words[(place := words.index("--total-steps")) : place + 2]  # it follows from the sequence
    inner = [
        option for option in DEFAULTS.values() if option.name.startswith(("sequence.", "retain.", "tasks."))
    ]
    apart = ("sequence.tasks", "sequence.steps_per_task", "sequence.joint", "tasks.count", "tasks.id")
    words += _drawn_options([option for option in inner if option.name not in apart], random, 3)
    return Command("sequence", launch.main, words)


def resume(random: Random, folder: Path) -> Command:
    """A continuation, now and then of what is no run."""
    place = str(folder / "run") if random.random() < 0.7 else random.choice(ODD)
    return Command("resume", launch.main, ["--resume", place, *_drawn_options(RESUMED, random, 2)])


def settings_file(random: Random, folder: Path) -> Command:
    """A run with the settings in a file."""
    known = [
        option for name, option in DEFAULTS.items() if name not in APART and not name.startswith("sequence.")
    ]
    path = folder / random.choice(("a.toml", "a.json"))
    strange = random.choice((0, 0, 1, 1, 2))
    data: dict[str, Any] = {}
    for number, option in enumerate(random.sample(known, 4)):
        right: list[Any] = fair(option, random) or [random.choice((True, False))]
        data[option.name] = (
            right[0] if number >= strange else random.choice((*edge(option, random), *ODD, *VALUES))
        )
    path.write_bytes(json.dumps(data).encode() if path.suffix == ".json" else _toml(data, random))
    return Command(
        "config", launch.main, ["quick", *_small(DEFAULTS), "--run-dir", "run", "--config", str(path)]
    )


def _toml(data: dict[str, Any], random: Random) -> bytes:
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in data.items()]
    if random.random() < 0.2:
        lines.append(
            random.choice(("x = " + "[" * 5000 + "]" * 5000, "x = " + "9" * 5000, "[" + "a." * 3000 + "b]"))
        )
    return "\n".join(lines).encode()


def _without(settings: Any, *names: str) -> list[Option]:
    return [option for option in options(settings) if option.name not in names]


def score(random: Random, folder: Path) -> Command:
    """An evaluation of a run of two games."""
    words = [str(folder / "run")] if random.random() < 0.9 else [random.choice(ODD)]
    words += "--episodes 1 --num-envs 1 --device cpu --splits test1".split()
    return Command(
        "eval", scoring.main, words + _drawn_options(_without(scoring.Options(""), "checkpoint"), random)
    )


def look(random: Random, folder: Path) -> Command:
    """The viewer of a run."""
    words = [str(folder / "run")] if random.random() < 0.9 else [random.choice(ODD)]
    words += ["--no-browser", "--no-render", "--device", "cpu"]
    return Command(
        "watch", watch.main, words + _drawn_options(_without(watch.Options(""), "checkpoint"), random)
    )


def compare(random: Random, folder: Path) -> Command:
    """A report on a run."""
    words = [str(folder / "run")] if random.random() < 0.9 else [random.choice(ODD)]
    words += "--out report --episodes 1 --splits test1".split()
    return Command(
        "report", report.main, words + _drawn_options(_without(report.Options(), "runs", "out"), random)
    )


def plan(random: Random, folder: Path) -> Command:
    """A suite, of which nothing is started."""
    name = random.choice(ODD)
    if random.random() < 0.6:
        name = random.choice(tuple(shipped()))
    elif random.random() < 0.5:
        path = folder / "suite.toml"
        extra = {"seeds": [random.choice(VALUES)], "grid": {"policy": [random.choice(VALUES)]}, "x": 1}
        data = {
            "summary": "s",
            "preset": "quick",
            random.choice(("seeds", "grid", "settings")): random.choice(VALUES),
        }
        data |= {key: extra[key] for key in random.sample(list(extra), random.randint(0, 2))}
        path.write_bytes(
            _toml({key: value for key, value in data.items() if not isinstance(value, dict)}, random)
        )
        name = str(path)
    seeds = [str(seed) for seed in range(random.choice((1, 3, 2000, 20_000)))]
    words = [
        name,
        "--dry-run",
        "--seeds",
        *seeds,
        *_drawn_options(_without(suite.Arguments(suite="x"), "suite", "seeds", "dry_run"), random, 2),
    ]
    return Command("suite", suite.main, words)


def plain(random: Random, folder: Path) -> Command:
    """An ordinary command, with one odd word in it or instead of one of its own more often than not."""
    words = [*ordinary_command(random), "--run-dir", "run"]
    place, kind = random.randrange(len(words)), random.random()
    if kind < 0.6:
        words[place : place + (kind < 0.4)] = [random.choice(ODD)]
    return Command("train", launch.main, words)


KINDS = (
    *(train,) * 8,
    *(
        sequence,
        sequence,
        resume,
        settings_file,
        settings_file,
        score,
        score,
        look,
        compare,
        plan,
        plain,
        plain,
    ),
)


def command_of(seed: int, number: int, folder: Path) -> Command:
    """Always the same for a seed and a number; `folder` holds a run, and files that commands name."""
    random = Random(f"{seed} {number}")
    return random.choice(KINDS)(random, folder)


@dataclass
class Tally:
    """What has become of the commands."""

    tried: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0  # seconds of the clock


def attempt(command: Command, place: Path, tally: Tally) -> None:
    """Run the command in the empty directory `place`, and count how it ended."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    output = place.with_suffix(".txt")
    output.unlink(missing_ok=True)  # what the command before has said
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        _become(command, place, output)
    code, asked = _wait(pid, output, TRAINING_SECONDS if command.main is launch.main else CPU_SECONDS)
    said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    left = [path.name for path in place.iterdir()]
    tally.tried += 1
    tally.slowest = max(tally.slowest, time.monotonic() - began)
    end, problem = _judged(command, code, asked, said, left)
    tally.ends[end] += 1
    if problem:
        words = [word[:80].encode("ascii", "backslashreplace").decode() for word in command.words[-12:]]
        tally.problems.append(
            {"program": command.name, "words": words, "problem": problem, "said": said[-400:]}
        )


def _become(command: Command, place: Path, output: Path) -> None:
    """The process of the command; it never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, other in ((0, os.open(os.devnull, os.O_RDONLY)), (1, target), (2, target)):
            os.dup2(other, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        logging.lastResort = logging.StreamHandler(sys.stderr)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = run_command(lambda: command.main(command.words) or 0)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _wait(pid: int, output: Path, seconds: float) -> tuple[int | None, bool]:
    """The exit code (None where it had to be killed), and whether it was asked to leave, after so many seconds of
    computing."""
    asked = False
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        end, start = time.monotonic() + PATIENCE, _cpu(pid)
        while time.monotonic() < end and _cpu(pid) - start < (CPU_SECONDS if asked else seconds):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), asked
            if not asked and output.exists() and SERVES in output.read_bytes():
                break
            time.sleep(0.02)
        asked = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    os.waitpid(pid, 0)
    return None, True


def _cpu(pid: int) -> float:
    """Seconds of computing so far."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _judged(
    command: Command, code: int | None, asked: bool, said: str, left: list[str]
) -> tuple[str, str | None]:
    """How it ended, and what is wrong with that."""
    if code is None:
        return "hung", "it had to be killed"
    if "Traceback" in said:
        return "traceback", "a traceback"
    if "\x1b" in said:
        return "escape", "it printed an escape character"
    if asked:
        # A run saves what it has when it is asked to leave. What a signal ends had not even begun.
        ended = () if command.main in (launch.main, suite.main) else (-signal.SIGTERM, -signal.SIGINT)
        fine = code in (0, 130, 143, *ended)
        return "left when asked", None if fine else f"it was asked to leave and ended with {code}"
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code == 2:
        one_line = len(lines) == 1 and len(lines[0]) <= LONGEST_LINE
        if not one_line:
            return "refused", f"{len(lines)} lines of errors, {len(said)} characters"
        return "refused", f"it left {', '.join(left)}" if left and command.name != "resume" else None
    if code == 1:
        return "failed in a line", None if len(lines) == 1 else "no line says why"
    return "worked", None if code == 0 else f"it ended with {code}"


def try_commands(
    count: int,
    folder: Path,
    seed: int = 0,
    only: Sequence[int] = (),
    jobs: int = 1,
    seconds: float = math.inf,
) -> Tally:
    """Draw and run commands, in `jobs` processes side by side; none is begun after so many `seconds`. `folder` is for
    their files."""
    end = time.monotonic() + seconds
    load_everything()
    for module in ("aiohttp", "matplotlib.pyplot", "rliable"):
        import_module(module)
    with contextlib.redirect_stdout(sys.stderr):
        launch.train(tiny_run(total_steps=80, evaluation_episodes=None), folder / "run")
    gc.collect()
    gc.freeze()  # so that processes need not copy what they share to look through it
    numbers = list(only or range(count))
    workers = [_Worker(folder, seed, numbers[part::jobs], part, end) for part in range(jobs)]
    tallies = [worker.tally() for worker in workers]
    return Tally(
        sum(tally.tried for tally in tallies),
        sum((tally.ends for tally in tallies), Counter()),
        [problem for tally in tallies for problem in tally.problems],
        max(tally.slowest for tally in tallies),
    )


class _Worker:
    """A process that tries the commands of some numbers, one after the other."""

    def __init__(self, folder: Path, seed: int, numbers: Sequence[int], part: int, end: float) -> None:
        self._results = folder / f"tally{part}.json"
        self._pid = os.fork()
        if self._pid:
            return
        code, tally, own = 70, Tally(), folder / f"files{part}"
        try:
            shutil.copytree(folder / "run", own / "run")
            for number in numbers:
                if time.monotonic() > end:
                    break
                before = len(tally.problems)
                attempt(command_of(seed, number, own), own / "place", tally)
                for problem in tally.problems[before:]:
                    print(json.dumps(problem | {"number": number}), file=sys.stderr, flush=True)
                self._results.write_text(json.dumps(vars(tally)), encoding="utf-8")
                if tally.tried % 50 == 0:
                    print(f"{part}: {tally.tried} {dict(tally.ends)}", file=sys.stderr, flush=True)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def tally(self) -> Tally:
        """What has become of its commands, once it has tried them all; that it failed is a problem, too."""
        _, status = os.waitpid(self._pid, 0)
        found = json.loads(self._results.read_text(encoding="utf-8")) if self._results.exists() else {}
        problems = [*found.get("problems", []), *([{"problem": "a worker failed"}] if status else [])]
        ends = Counter(found.get("ends", {}))
        return Tally(found.get("tried", 0), ends, problems, found.get("slowest", 0.0))


@dataclass(frozen=True)
class Options:
    """What to try.

    Attributes:
        examples: number of command lines.
        seed: of the commands.
        only: numbers of single ones, to look at what became of them.
        jobs: processes side by side.
        minutes: after which no further command is begun; none for no such limit.
        out: file for the result; none only prints it.
    """

    examples: Annotated[int, Range(1, 10**6)] = 2000
    seed: int = 0
    only: tuple[int, ...] = ()
    jobs: Annotated[int, Range(1, 1024)] = 1
    minutes: Annotated[float | None, Range(0, 10**6)] = None
    out: Path | None = None


def main(options: Options) -> int:
    """Try the commands and tell how they ended; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="odd-commands-") as folder:
        seconds = math.inf if options.minutes is None else 60 * options.minutes
        tally = try_commands(
            options.examples, Path(folder), options.seed, options.only, options.jobs, seconds
        )
    result = {
        "command": f"python -m benchmarks.odd_commands --examples {options.examples} --seed {options.seed}",
        "machine": describe_machine(),
        "tried": tally.tried,
        "minutes": options.minutes,
        "ends": dict(tally.ends),
        "not_refused": round(1 - tally.ends["refused"] / max(1, tally.tried), 3),
        "cpu_limit_seconds": CPU_SECONDS,
        "slowest_seconds": round(tally.slowest, 1),
        "problems": tally.problems,
    }
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return int(bool(tally.problems))


if __name__ == "__main__":
    sys.exit(run_with_options(Options, main, "python -m benchmarks.odd_commands"))
