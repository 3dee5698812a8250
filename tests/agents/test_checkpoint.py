from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import checkpoint
from agents.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from helpers import assert_same

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
ARRAY_DTYPES = [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def make_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return (200.0 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def make_array(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    return np.asarray(200.0 * np.random.default_rng(seed).random(shape)).astype(dtype)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=16)
    | st.builds(make_tensor, SHAPES, st.sampled_from(DTYPES), st.integers(0, 99))
    | st.builds(make_array, SHAPES, st.sampled_from(ARRAY_DTYPES), st.integers(0, 99))
)
# Few names, with the separator of the file's own keys among them, so that they clash if they can.
NAMES = st.sampled_from(["a", "b", "a/b", "0", "a/0", "", "/", "ä"]) | st.text(max_size=4)
CONTENT = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round_trip")


@settings(max_examples=60)
@given(content=CONTENT)
def test_what_is_written_is_read(folder: Path, content: dict[str, Any]) -> None:
    assert_same(read_checkpoint(write_checkpoint(folder / "any.ckpt", content)), content)


def test_a_round_trip_by_hand(tmp_path: Path) -> None:
    content = {
        "floats": [math.inf, -math.inf, math.nan, 0.1, 1e-320, -0.0],
        "text": "line\nline \u2603",
        "nested": {"bytes": b"\x00\xff", "nothing": None, "flag": True, "number": 2**80},
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "array of one": np.array(7, dtype=np.int32),
        "empty": [{}, [], b"", torch.zeros(0, 3)],
    }
    assert_same(read_checkpoint(write_checkpoint(tmp_path / "a.ckpt", content)), content)


def test_tuples_become_lists_and_numpy_scalars_numbers(tmp_path: Path) -> None:
    content = {"a": (1, 2), "b": np.float32(0.5), "c": np.bool_(True), "d": {3: "three"}}
    got = read_checkpoint(write_checkpoint(tmp_path / "a.ckpt", content))
    assert_same(got, {"a": [1, 2], "b": 0.5, "c": True, "d": {"3": "three"}})


def test_what_is_read_is_on_the_cpu_without_gradient_and_can_be_written_to(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", {"t": torch.ones(2, requires_grad=True), "a": np.ones(2)})
    got = read_checkpoint(path)
    assert not got["t"].requires_grad
    got["t"] += 1.0
    got["a"] += 1.0


def test_a_small_part_of_a_large_tensor_makes_a_small_file(tmp_path: Path) -> None:
    path = write_checkpoint(
        tmp_path / "a.ckpt", {"t": torch.zeros(1_000_000)[:10], "a": np.zeros(1_000_000)[::100_000]}
    )
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, 1j, print, Path("x"), np.array(["a"]), np.array([None]), np.complex64(1)]
)
def test_what_is_not_data_is_refused_and_nothing_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "a.ckpt", {"ok": 1, "part": [value]})
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_says_where(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot hold set \(at /part/1/x\)"):
        write_checkpoint(tmp_path / "a.ckpt", {"part": [0, {"x": {1}}]})


def test_a_mapping_that_looks_like_the_files_own_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"\$tensor"):
        write_checkpoint(tmp_path / "a.ckpt", {"x": {"$tensor": "anything"}})


@pytest.mark.parametrize(
    ("given_name", "written"),
    [("run", "run.ckpt"), ("run.ckpt", "run.ckpt"), ("run.zip", "run.zip"), ("a/b/run", "a/b/run.ckpt")],
)
def test_the_suffix_is_added_where_there_is_none(tmp_path: Path, given_name: str, written: str) -> None:
    assert write_checkpoint(tmp_path / given_name, {"x": 1}) == tmp_path / written
    assert (tmp_path / written).is_file()
    assert read_checkpoint(tmp_path / given_name) == {"x": 1}
    assert read_checkpoint(str(tmp_path / written)) == {"x": 1}


@pytest.mark.parametrize("nameless", ["", ".", "/"])
def test_a_place_without_a_name_is_a_directory(nameless: str) -> None:
    with pytest.raises(CheckpointError, match="it is a directory"):
        read_checkpoint(nameless)
    with pytest.raises(IsADirectoryError):
        write_checkpoint(nameless, {"x": 1})


def test_the_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_checkpoint(tmp_path / "a.ckpt", {"x": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def save_half(file: Any, *parts: Any) -> None:
    file.write(b"half of it")
    fail()


def fail(*args: Any) -> None:
    raise OSError(28, "No space left on device")


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name", "replacement", "error"),
    [
        (checkpoint, "_write", save_half, OSError),
        (os, "fsync", fail, OSError),
        (os, "replace", fail, OSError),
        (checkpoint, "_write", interrupt, KeyboardInterrupt),
        (os, "replace", interrupt, KeyboardInterrupt),
    ],
)
def test_a_failure_in_the_middle_leaves_the_old_file_whole_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    replacement: Any,
    error: type[BaseException],
) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", {"step": 1})
    before = path.read_bytes()
    monkeypatch.setattr(module, name, replacement)
    with pytest.raises(error):
        write_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_takes_its_place_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file is on the disk, beside the old one, before it replaces it."""
    path = write_checkpoint(tmp_path / "a.ckpt", {"step": 1})
    synced, replaced = [], []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    def watch_replace(source: Any, target: Any) -> None:
        assert read_checkpoint(path) == {"step": 1}
        assert Path(source).parent == path.parent
        assert synced == [Path(source).stat().st_size]
        replaced.append(Path(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    write_checkpoint(path, {"step": 2})
    assert replaced == [path]
    assert read_checkpoint(path) == {"step": 2}


def assert_refused(path: Path, pattern: str) -> None:
    with pytest.raises(CheckpointError, match=pattern) as refusal:
        read_checkpoint(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert path.name in message


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    content = {"policy": {"w": torch.arange(1000.0)}, "text": "x" * 500, "env": b"y" * 3000}
    return write_checkpoint(tmp_path / "whole.ckpt", content)


def test_a_truncated_file_is_refused_wherever_it_ends(whole: Path) -> None:
    data = whole.read_bytes()
    cuts = {*range(70), *range(0, len(data), 211), *range(len(data) - 120, len(data))}
    part = whole.with_name("part.ckpt")
    for length in sorted(cuts):
        part.write_bytes(data[:length])
        assert_refused(part, "not a whole checkpoint")


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.ckpt"
    rng = np.random.default_rng(0)
    for head in (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x05", b"{}", b"(", b"I1\n."):
        for _ in range(5):
            path.write_bytes(head + rng.bytes(400))
            assert_refused(path, "not a whole checkpoint")


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def test_a_single_flipped_bit_is_noticed_wherever_it_is(whole: Path) -> None:
    data, path = whole.read_bytes(), whole.with_name("damaged.ckpt")
    rng = np.random.default_rng(1)
    for _ in range(150):
        path.write_bytes(flipped(data, rng))
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.ckpt", "does not exist")
    assert_refused(tmp_path / "missing", "does not exist")
    assert_refused(tmp_path, "is a directory")
    empty = tmp_path / "empty.ckpt"
    empty.touch()
    assert_refused(empty, "not a whole checkpoint")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(whole: Path) -> None:
    whole.chmod(0)
    assert_refused(whole, "Permission denied")


@pytest.mark.parametrize(
    "content", [{"w": torch.zeros(2)}, torch.zeros(2), [1, 2], {"format": "another"}, {"format": None}]
)
def test_files_of_other_programs_are_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    assert_refused(path, "not a whole checkpoint of this project")


@pytest.mark.parametrize("version", [1, 2, 99])
def test_another_version_is_refused(whole: Path, version: int) -> None:
    data = bytearray(whole.read_bytes())
    data[24:28] = struct.pack("<I", version)
    whole.write_bytes(data)
    assert_refused(whole, f"version {version}, this code reads version {checkpoint.VERSION}")


@pytest.mark.parametrize(
    "content",
    [
        [],
        "text",
        {"x": {"$tensor": "1", "as": "tensor"}},
        {"x": {"$tensor": "0"}},
        {"x": {"$tensor": "0", "as": "bytes"}},
        {"x": {"$tensor": [], "as": "tensor"}},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, content: Any) -> None:
    header = json.dumps({"tensors": [["bfloat16", [1]]], "content": content}).encode()
    data = (
        struct.pack("<24sIQ", b"procgen-srwm checkpoint\n", checkpoint.VERSION, len(header))
        + header
        + b"\0\0"
    )
    path = tmp_path / "odd.ckpt"
    path.write_bytes(data + hashlib.sha256(data).digest())
    assert_refused(path, "is damaged")


class TestHostileFiles:
    """Each is refused before it can take memory or time."""

    def header(self, version: int = checkpoint.VERSION, length: int = 0, rest: bytes = b"") -> bytes:
        return struct.pack("<24sIQ", b"procgen-srwm checkpoint\n", version, length) + rest

    @pytest.mark.parametrize("length", [1 << 30, (1 << 64) - 1])
    def test_a_header_that_claims_to_be_enormous(self, tmp_path: Path, length: int) -> None:
        path = tmp_path / "a.ckpt"
        path.write_bytes(self.header(length=length, rest=b"{}"))
        assert_refused(path, "not a whole checkpoint")

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            '{"tensors": [["float32", [1000000000000, 1000000000000]]], "content": {}}',
            '{"tensors": [["float32", [-1]]], "content": {}}',
            '{"tensors": [["float32", [true]]], "content": {}}',
            '{"tensors": [["os.system", [1]]], "content": {}}',
            '{"tensors": 5, "content": {}}',
            '{"content": {}}',
            "[]",
            "9" * 10_000,
        ],
    )
    def test_headers_that_make_no_sense(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.ckpt"
        path.write_bytes(self.header(length=len(text), rest=text.encode() + bytes(32)))
        assert_refused(path, "not a whole checkpoint")

    def test_content_nested_without_end(self, tmp_path: Path) -> None:
        depth = 900  # the parser takes it, what follows need not
        text = '{"tensors": [], "content": ' + '{"a": ' * depth + "1" + "}" * depth + "}"
        data = self.header(length=len(text), rest=text.encode())
        path = tmp_path / "a.ckpt"
        path.write_bytes(data + hashlib.sha256(data).digest())
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)

    def test_a_flag_that_is_neither_true_nor_false(self, tmp_path: Path) -> None:
        text = '{"tensors": [["bool", [3]]], "content": {"x": {"$tensor": "0", "as": "tensor"}}}'
        data = self.header(length=len(text), rest=text.encode() + b"\x00\x01\xff")
        path = tmp_path / "a.ckpt"
        path.write_bytes(data + hashlib.sha256(data).digest())
        assert read_checkpoint(path)["x"].view(torch.uint8).tolist() == [0, 1, 1]

    def test_a_file_larger_than_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoint, "memory_bytes", lambda: 1 << 30)
        path = tmp_path / "a.ckpt"
        path.write_bytes(self.header())
        os.truncate(path, (1 << 30) + 1)  # all but the start is a hole: it takes no room on the disk
        assert_refused(path, "it cannot be read here")

    def test_a_file_that_is_long_and_foreign(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ckpt"
        path.write_bytes(b"anything")
        os.truncate(path, 1 << 40)
        assert_refused(path, "not a whole checkpoint")

    def test_a_pipe_and_a_device(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.ckpt")
        assert_refused(tmp_path / "pipe.ckpt", "is not a file")
        assert_refused(Path("/dev/zero"), "is not a file")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "exploded"
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps(Bomb(mark)))
    zipped = tmp_path / "zipped.ckpt"
    tensors = {"x": Bomb(mark)}
    torch.save({"format": checkpoint.FORMAT, "version": 1, "meta": "{}", "tensors": tensors}, zipped)
    for path in (plain, zipped):
        assert_refused(path, "not a whole checkpoint")
    assert not mark.exists()
    torch.load(zipped, weights_only=False)
    assert mark.exists()  # it would have
