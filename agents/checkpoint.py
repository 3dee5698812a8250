r"""Checkpoint files: tensors and JSON in one file, written atomically, checked and read without executing anything.

Format version 3, numbers little-endian::

    24 bytes   "procgen-srwm checkpoint\n"
     4 bytes   format version
     8 bytes   length of the header
    header     JSON: {"tensors": [[dtype, shape], ...], "content": ...}
    tensors    their bytes, one after the other, row-major
    32 bytes   SHA-256 of everything before it

In the content, ``{"$tensor": number, "as": kind}`` stands for a tensor, an array or bytes; each of them once.

Nothing in a file is believed before it is known to be small: the limits below hold for what is written, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import struct
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError, shown
from common.files import atomic_write, open_regular
from common.machine import memory_bytes

FORMAT = "procgen-srwm checkpoint"
VERSION = 3
SUFFIX = ".ckpt"

MAX_HEADER = 16 << 20
"""Bytes: tensors, not JSON, are what makes a checkpoint large."""
MAX_ENTRIES = 1_000_000
"""Brackets and commas in the header, which bound what it is parsed into."""
MAX_DEPTH = 32
"""Tables and lists within one another."""
MAX_DIGITS = 100
"""Of a whole number."""
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 42
"""Of a tensor, counting an empty dimension as one."""

_MAGIC = f"{FORMAT}\n".encode()
_FIXED = struct.Struct("<24sIQ")
_DIGEST = hashlib.sha256
_DIGEST_SIZE = _DIGEST().digest_size
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MARK = "$tensor"


class CheckpointError(UserError):
    """A checkpoint file cannot be read, or does not fit what it is loaded into."""


PathOrFile = str | os.PathLike[str] | IO[bytes] | io.BufferedIOBase
"""Where a checkpoint is: a path, or a binary file that is open and can be sought."""


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """`path`, with the suffix of checkpoints if it has none."""
    path = Path(path)
    return path if path.suffix or not path.name else path.with_suffix(SUFFIX)


def existing_checkpoint(path: str | os.PathLike[str]) -> Path:
    """`path`, or what is there under its name with a suffix: Stable-Baselines3's callbacks give theirs, ``.zip``."""
    path = Path(path)
    suffixes = (SUFFIX, ".zip") if path.name else ()  # "." and "/" are places without a name
    candidates = (path, *(path.with_name(path.name + suffix) for suffix in suffixes))
    return next((candidate for candidate in candidates if candidate.exists()), path)


# Writing


def write_checkpoint(path: PathOrFile, content: Mapping[str, Any]) -> Path | None:
    """Write nested dicts and lists of plain values, tensors, arrays and bytes.

    At a path the file appears whole or not at all: it is written beside its place, flushed to the disk and renamed.

    Returns:
        Where it was written: `path`, with the suffix of checkpoints if it had none; None for an open file.

    Raises:
        OSError: the directory cannot be written or the disk is full; an earlier file at `path` is untouched.
        TypeError: `content` holds something that is neither data nor a tensor.
        ValueError: it is larger, or nested more deeply, than anything that is read again.
    """
    tensors: list[Tensor] = []
    packed = _pack(content, "", tensors, MAX_DEPTH)
    described = [[_DTYPE_NAMES[tensor.dtype], list(tensor.shape)] for tensor in tensors]
    header = json.dumps({"tensors": described, "content": packed}).encode()
    _check_size(header)
    for dtype, shape in described:
        _checked(dtype, shape)
    if not isinstance(path, (str, os.PathLike)):
        _write(path, header, tensors)
        return None
    target = checkpoint_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target, "wb") as file:
        _write(file, header, tensors)
    return target


def _write(file: IO[bytes] | io.BufferedIOBase, header: bytes, tensors: Sequence[Tensor]) -> None:
    digest = _DIGEST()

    def put(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    put(_FIXED.pack(_MAGIC, VERSION, len(header)))
    put(header)
    for tensor in tensors:
        if tensor.numel():
            put(_as_bytes(tensor).numpy().data)
    file.write(digest.digest())


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


# Reading


def read_checkpoint(path: PathOrFile) -> dict[str, Any]:
    """What `write_checkpoint` was given: tensors stay tensors (on the CPU), arrays arrays, bytes bytes.

    Nothing in a file is executed, and no more memory is taken than the file is long, and some 200 MB for its header.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, larger than this machine's memory, not a checkpoint of
            this project, or of a version that this code does not know.
    """
    is_path = isinstance(path, (str, os.PathLike))
    source: Path | str = Path(path) if is_path else "the open file"  # type: ignore[arg-type]
    try:
        if not isinstance(source, Path):
            return _read(path, source)  # type: ignore[arg-type]
        source = existing_checkpoint(source)
        with _open_regular(source) as file:
            return _read(file, source)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {source}: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{source} needs more memory than there is: use a machine with more") from error
    except ValueError as error:  # a path with a character that no path has
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot read the checkpoint {shown(str(source))}: {error}") from error


def _open_regular(source: Path) -> IO[bytes]:
    try:
        kind = source.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = 0
    if not stat.S_ISREG(kind):
        # A pipe or a device might never end.
        what = "does not exist" if not kind else "is a directory" if stat.S_ISDIR(kind) else "is not a file"
        raise CheckpointError(f"no checkpoint at {source}: it {what}; name a {SUFFIX} file")
    return open_regular(source)


class Place(NamedTuple):
    """Where in a file a tensor lies, from the file's first byte on."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def read_layout(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `read_checkpoint` gives, but of each tensor, array and bytes only its `Place`, and nothing is checked.

    Raises:
        CheckpointError: as `read_checkpoint`, except where only the tensors are damaged.
    """
    source = existing_checkpoint(path)
    try:
        with _open_regular(source) as file:
            header = _read_header(file, source)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {source}: {error.strerror or error}") from error
    places: dict[str, Place] = {}
    offset = header.end
    for number, ((dtype, shape), length) in enumerate(zip(header.shapes, header.lengths, strict=True)):
        places[str(number)] = Place(offset, dtype, tuple(shape))
        offset += length
    return _content(source, header.content, places)


def check_digest(source: Path, data: memoryview) -> None:
    """Compare the whole `data` of the file `source` with the checksum at its end.

    Raises:
        CheckpointError: it is damaged.
    """
    if _DIGEST(data[:-_DIGEST_SIZE]).digest() != data[-_DIGEST_SIZE:]:
        raise _damaged(source)


class _Header(NamedTuple):
    """The part of a file before its tensors.

    Attributes:
        data: its bytes.
        shapes: types and shapes of the tensors.
        lengths: their bytes.
        content: the JSON, in which numbers stand for tensors.
        end: where the tensors begin.
    """

    data: bytes
    shapes: list[tuple[torch.dtype, list[int]]]
    lengths: list[int]
    content: Any
    end: int


def _read_header(file: IO[bytes] | io.BufferedIOBase, source: Path | str) -> _Header:
    begin = file.tell()
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin)
    memory = memory_bytes()
    start = file.read(_FIXED.size)
    if not start.startswith(_MAGIC):
        raise not_whole(source)
    if len(start) < _FIXED.size:
        raise not_whole(source)
    _, version, header_size = _FIXED.unpack(start)
    if version != VERSION:
        raise unknown_version(source, version)
    if size > memory:
        raise _too_large(source, size, memory)
    if header_size > min(MAX_HEADER, size):
        raise not_whole(source)
    header = file.read(header_size)
    try:
        _check_size(header)
        described = json.loads(header.decode("ascii"), parse_int=_whole_number)
        shapes = [_checked(dtype, shape) for dtype, shape in described["tensors"]]
        content = described["content"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise not_whole(source) from error
    lengths = [dtype.itemsize * math.prod(shape) for dtype, shape in shapes]
    if _FIXED.size + header_size + sum(lengths) + _DIGEST_SIZE != size:
        raise not_whole(source)
    return _Header(start + header, shapes, lengths, content, begin + _FIXED.size + header_size)


def _read(file: IO[bytes] | io.BufferedIOBase, source: Path | str) -> dict[str, Any]:
    header, shapes, lengths, content, _ = _read_header(file, source)
    digest = _DIGEST(header)
    values: dict[str, Tensor] = {}
    for number, ((dtype, shape), length) in enumerate(zip(shapes, lengths, strict=True)):
        data = bytearray(length)
        if file.readinto(data) != length:  # type: ignore[union-attr]  # a file that is read has it
            raise not_whole(source)
        digest.update(data)
        values[str(number)] = _tensor(data, dtype, shape)
    if file.read(_DIGEST_SIZE + 1) != digest.digest():
        raise _damaged(source)
    return _content(source, content, values)


def _check_size(header: bytes) -> None:
    """Whether parsing `header` takes little time and memory, known before it is parsed."""
    entries = sum(map(header.count, (b"[", b"{", b",")))
    if len(header) > MAX_HEADER or entries > MAX_ENTRIES:
        raise ValueError(
            f"its header has {len(header):,} bytes and {entries:,} entries: "
            f"at most {MAX_HEADER:,} and {MAX_ENTRIES:,} are stored"
        )


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _checked(dtype: object, shape: object) -> tuple[torch.dtype, list[int]]:
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"no type {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"no shape {shown(shape)}")
    if not all(type(n) is int and 0 <= n <= MAX_ELEMENTS for n in shape):
        raise ValueError(f"no shape {shown(shape)}")
    if math.prod(max(n, 1) for n in shape) > MAX_ELEMENTS:
        raise ValueError(f"too many elements: {shown(shape)}")
    return _DTYPES[dtype], shape


def _tensor(data: bytearray, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    if not data:
        return torch.zeros(tuple(shape), dtype=dtype)
    if dtype is torch.bool:  # a byte other than 0 and 1 would be neither true nor false
        return (torch.frombuffer(data, dtype=torch.uint8) != 0).reshape(tuple(shape))
    return torch.frombuffer(data, dtype=dtype).reshape(tuple(shape))


def _content(source: Path | str, packed: Any, tensors: MutableMapping[str, Any]) -> dict[str, Any]:
    try:
        content = _unpack(packed, tensors, MAX_DEPTH)
        if not isinstance(content, dict):
            raise TypeError(f"the content is of type {type(content).__name__}")
        if tensors:
            raise ValueError("tensors that nothing refers to")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is damaged: its parts do not fit together; use another one"
        ) from error
    return content


def _damaged(source: Path | str) -> CheckpointError:
    return CheckpointError(f"{source} is damaged: its checksum does not match; use another one")


# Files as they are, for who examines what becomes of wrong ones


def fields_of_file(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The header of a whole file and the bytes of its tensors; nothing is checked."""
    _, _, size = _FIXED.unpack_from(data)
    place = _FIXED.size + size
    header = json.loads(data[_FIXED.size : place])
    parts = []
    for dtype, shape in header["tensors"]:
        length = _DTYPES[dtype].itemsize * math.prod(shape)
        parts.append(data[place : place + length])
        place += length
    return header, parts


def file_of_fields(header: bytes, parts: Sequence[bytes]) -> bytes:
    """A file with this header and these bytes, and the checksum that belongs to it."""
    data = b"".join((_FIXED.pack(_MAGIC, VERSION, len(header)), header, *parts))
    return data + _DIGEST(data).digest()


def not_whole(source: Path | str) -> CheckpointError:
    """What is said of a file that may be anything."""
    return CheckpointError(
        f"{source} is not a whole checkpoint of this project (truncated, damaged or foreign): use another one"
    )


def unknown_version(source: Path | str, version: object) -> CheckpointError:
    """What is said of a file that another release wrote."""
    return CheckpointError(
        f"{source} has checkpoint format version {version}, this code reads version {VERSION}: "
        "use the release that wrote it"
    )


def _too_large(source: Path | str, size: int, memory: int) -> CheckpointError:
    return CheckpointError(
        f"{source} has {size / 2**30:,.0f} GiB, this machine {memory / 2**30:,.0f} GiB of memory: "
        "it cannot be read here"
    )


# Tensors, arrays and bytes in the JSON


def _pack(value: Any, where: str, tensors: list[Tensor], depth: int) -> Any:
    if depth < 0:
        raise ValueError(
            f"a checkpoint cannot hold more than {MAX_DEPTH} tables within one another (at {where})"
        )
    if isinstance(value, Mapping):
        if _MARK in value:
            raise TypeError(f"a checkpoint cannot hold the name {_MARK!r} (at {where or 'the top'})")
        return {str(name): _pack(item, f"{where}/{name}", tensors, depth - 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{where}/{index}", tensors, depth - 1) for index, item in enumerate(value)]
    if isinstance(value, (bytes, bytearray)):
        return _stored(np.frombuffer(bytes(value), dtype=np.uint8), "bytes", where, tensors)
    if isinstance(value, np.ndarray):
        return _stored(value, "array", where, tensors)
    if isinstance(value, Tensor):
        return _stored(value, "tensor", where, tensors)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise ValueError(f"a checkpoint cannot hold a number of more than {MAX_DIGITS} digits (at {where})")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {where or 'the top'})")


def _stored(value: Tensor | NDArray[Any], kind: str, where: str, tensors: list[Tensor]) -> dict[str, str]:
    """Add a copy of `value` to `tensors`; returns what stands for it in the JSON."""
    if isinstance(value, Tensor):
        tensor = value.detach().to("cpu", copy=True)
    else:
        tensor = torch.from_numpy(np.ascontiguousarray(value).copy()).reshape(value.shape)
    if tensor.dtype not in _DTYPE_NAMES:
        raise TypeError(f"a checkpoint cannot hold {tensor.dtype} (at {where or 'the top'})")
    tensors.append(tensor)
    return {_MARK: str(len(tensors) - 1), "as": kind}


def _unpack(value: Any, tensors: MutableMapping[str, Any], depth: int) -> Any:
    if depth < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_unpack(item, tensors, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {name: _unpack(item, tensors, depth - 1) for name, item in value.items()}
    tensor = tensors.pop(value[_MARK])  # once: as bytes, each use would take its memory again
    if isinstance(tensor, Place):
        return tensor
    kind = value["as"]
    if kind not in ("bytes", "array", "tensor"):
        raise ValueError(f"no kind {shown(kind)}")
    if kind == "bytes":
        return tensor.numpy().tobytes()
    return tensor.numpy() if kind == "array" else tensor
