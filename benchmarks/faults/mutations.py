"""Checkpoints that are whole, checksum included, and wrong in one or several values."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import agents
from agents import Agent
from agents.checkpoint import fields_of_file, file_of_fields
from benchmarks.faults.workspace import Outcome, Workspace
from common.errors import RunError, UserError
from envs import ProcgenVecEnv

CPU_SECONDS = 10.0
MEMORY = 2 << 30
"""Bytes that a process may take beyond what it has before it reads a file."""
AT_ONCE = 40
"""Files that one process reads."""
TRAINED = 4
"""Of so many files, one is trained with, too: that takes longest."""

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        -0.0,
        255,
        65_536,
        2**31,
        2**63,
        -(2**63),
        10**30,
        10**90,
        10**400,
    ),
    *(
        math.nan,
        math.inf,
        -math.inf,
        1e-320,
        1e308,
        "",
        "x",
        "\x1b[2J\x07",
        "../../x",
        "\ud800",
        "9" * 400,
        "a" * 10**5,
    ),
    *(
        [],
        {},
        [[]],
        [{}],
        {"": {}},
        [0] * 1000,
        [[]] * 1000,
        {"name": "srwm"},
        {"$tensor": "0", "as": "tensor"},
    ),
    *(
        {"$tensor": "0", "as": "bytes"},
        {"$tensor": "999", "as": "array"},
        {"$tensor": 0},
        "impala",
        "none",
        "never",
    ),
)
TYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "",
    None,
)


@dataclass
class File:
    """What a checkpoint file says, to be changed.

    Attributes:
        header: its JSON: "tensors" and "content".
        data: the bytes of each tensor.
    """

    header: dict[str, Any]
    data: list[bytes]

    @classmethod
    def read(cls, raw: bytes) -> File:
        """Of a whole file."""
        return cls(*fields_of_file(raw))

    def bytes(self) -> bytes:
        """A file with a right checksum, whatever it says."""
        return file_of_fields(json.dumps(self.header).encode(), self.data)


def mutated(original: File, random: Random) -> bytes:
    """`original` with one to three things changed."""
    file = File(deepcopy(original.header), list(original.data))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice((_change_value, _change_value, _change_value, _change_tensor, _change_data))(
            file, random
        )
    return file.bytes()


def _places(value: Any, random: Random) -> Iterator[tuple[Any, Any]]:
    """The way from the content to one of its values: containers and keys."""
    while isinstance(value, (dict, list)) and value:
        key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
        yield value, key
        value = value[key]


def _change_value(file: File, random: Random) -> None:
    owner, key = random.choice(list(_places({"content": file.header["content"]}, random)))
    kind = random.randrange(8)
    if kind < 5:
        owner[key] = deepcopy(random.choice(ODD))
    elif kind == 5 and isinstance(owner, dict):
        owner[random.choice(("x", key + key, "", "0", "name", "\x1b[31m"))] = owner.pop(key)
    elif kind == 6:
        del owner[key]
    else:
        other, place = random.choice(list(_places(file.header["content"], random)) or [(owner, key)])
        if key in owner if isinstance(owner, dict) else key < len(owner):
            owner[key] = deepcopy(other[place])
    if random.random() < 0.02:
        for _ in range(random.choice((10, 100, 900))):
            file.header["content"] = {"run": file.header["content"]}


def _change_tensor(file: File, random: Random) -> None:
    number = random.randrange(len(file.header["tensors"]))
    entry = file.header["tensors"][number]
    try:
        _, shape = entry
        size = random.choice((0, 1, -1, 7, 2**31, 2**48 - 1, 2**63, 10**30, 1.5, "3", None, [3]))
        match random.randrange(7):
            case 0:
                entry[0] = random.choice(TYPES)
            case 1:
                shape[random.randrange(len(shape))] = size
            case 2:
                entry[1] = [0, *[2**48 - 1] * random.choice((1, 5, 1000, 65_000))]
            case 3:
                entry[1] = [math.prod(shape)] if random.random() < 0.5 else [1, *shape]
            case 4:
                random.shuffle(shape)
            case 5:
                file.header["tensors"][number] = random.choice(ODD)
            case 6:
                entry[1] = [1] * len(shape)
                file.data[number] = file.data[number][: random.choice((1, 2, 4, 8))]
    except (ValueError, TypeError, IndexError):
        return


def _change_data(file: File, random: Random) -> None:
    number = random.randrange(len(file.data))
    length = len(file.data[number])
    fill = random.choice((b"\x00", b"\xff", b"\x7f", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x01"))
    file.data[number] = (fill * length)[:length] if random.random() < 0.7 else random.randbytes(length)


def refusal(path: Path, env: ProcgenVecEnv, *, train: bool = True) -> str | None:
    """Load `path` and act with it, and train with it, too; what it is refused with, or None.

    Raises:
        Exception: it is neither refused in a line nor taken.
    """
    try:
        agent = agents.load(path, device="cpu")
        _act(agent)
        if train:
            agent = agents.load(path, env, device="cpu")
            agent.learn(env.num_envs * agent.config.rollout_steps, reset_num_timesteps=False)
            agent.save(path.with_suffix(".again"))
            agents.load(path.with_suffix(".again"), device="cpu")
    except (UserError, RunError) as error:
        said = str(error)
        if "\n" in said or len(said) > 5000 or not said.isprintable():
            raise ValueError(f"it is refused with {said[:300]!r}") from error
        return said
    return None


def _act(agent: Agent) -> None:
    observation = agent.observation_space.sample()
    _, state = agent.predict(observation)
    agent.predict(observation, state)


def changed_values(workspace: Workspace) -> Outcome:
    """A checkpoint with wrong values and a right checksum is refused in a line, or works, within bounds."""
    outcome = Outcome()
    original = File.read(workspace.undisturbed.checkpoint_files()[-1].read_bytes())
    seeds = [workspace.random.randrange(2**63) for _ in range(workspace.mutations)]
    parts = [seeds[begin : begin + AT_ONCE] for begin in range(0, len(seeds), AT_ONCE)]
    refused, slowest = 0, 0.0
    gc.collect()
    gc.freeze()  # so that processes need not copy what they share to look through it
    end = time.monotonic() + 60 * workspace.minutes
    for begin in range(0, len(parts), workspace.jobs):
        if time.monotonic() > end:
            break
        readers = [
            _Reader(original, part, workspace.folder) for part in parts[begin : begin + workspace.jobs]
        ]
        for found in (found for reader in readers for found in reader.results()):
            outcome.count([found["problem"]] if found["problem"] else [])
            refused += found["refused"]
            slowest = max(slowest, found["seconds"])
        print(f"{outcome.survived} of {outcome.tried}, {refused} refused", file=sys.stderr, flush=True)
    outcome.more |= {
        "refused": refused,
        "slowest_cpu_seconds": round(slowest, 2),
        "cpu_limit_seconds": CPU_SECONDS,
        "memory_limit_mb": MEMORY >> 20,
    }
    return outcome


class _Reader:
    """A process that reads the files of some seeds; where one ends it, another goes on behind it."""

    def __init__(self, original: File, seeds: Sequence[int], folder: Path) -> None:
        self._original, self._seeds, self._folder = original, seeds, folder
        self._found: list[dict[str, Any]] = []
        self._start()

    def _start(self) -> None:
        reader, writer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(reader)
            _read_files(self._original, self._seeds[len(self._found) :], self._folder, writer)
        os.close(writer)
        self._reader = reader

    def results(self) -> list[dict[str, Any]]:
        """What became of the file of each seed; one that ends the process is the problem of its seed."""
        while True:
            with os.fdopen(self._reader, encoding="utf-8") as lines:
                self._found += [json.loads(line) for line in lines]
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            if code != 0:
                problem = f"seed {self._seeds[len(self._found)]} ended the process with {code}"
                self._found.append({"problem": problem, "refused": False, "seconds": CPU_SECONDS})
            if len(self._found) >= len(self._seeds):
                return self._found
            self._start()


def _read_files(original: File, seeds: Sequence[int], folder: Path, writer: int) -> None:
    """The process that reads; it never returns."""
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        env = ProcgenVecEnv(["bigfish", "dodgeball"], 4, num_threads=0)
        path = folder / f"mutated{os.getpid()}.ckpt"
        gc.freeze()
        with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as lines, redirect_stdout(sys.stderr):
            for seed in seeds:
                path.write_bytes(mutated(original, Random(seed)))
                began, said, problem = time.process_time(), None, ""
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process
                try:
                    said = refusal(path, env, train=seed % TRAINED == 0)
                except Exception as error:
                    problem = f"seed {seed}: {error!r}"[:500]
                signal.setitimer(signal.ITIMER_PROF, 0)
                seconds = time.process_time() - began
                line = {"problem": problem, "refused": said is not None, "seconds": seconds}
                lines.write(json.dumps(line) + "\n")
                gc.collect()  # of what the file has left: all else is frozen
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(70)
