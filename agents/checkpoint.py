"""Checkpoint files: tensors and JSON in one file, written atomically, read without executing anything.

A file is what `torch.save` makes of ``{"format", "version", "meta": JSON text, "tensors": {key: tensor}}`` and is
read with ``weights_only=True``. In the JSON, ``{"$tensor": key}`` stands for a tensor, an array or bytes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError

FORMAT = "procgen-srwm checkpoint"
VERSION = 1
SUFFIX = ".ckpt"

_MARK = "$tensor"


class CheckpointError(UserError):
    """A checkpoint file cannot be read, or does not fit what it is loaded into."""


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """`path`, with the suffix of checkpoints if it has none."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(SUFFIX)


def write_checkpoint(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write nested dicts and lists of plain values, tensors, arrays and bytes.

    The file appears whole or not at all: it is written beside its place, flushed to the disk and then renamed.

    Returns:
        Where it was written: `path`, with the suffix of checkpoints if it had none.

    Raises:
        OSError: the directory cannot be written or the disk is full; an earlier file at `path` is untouched.
        TypeError: `content` holds something that is neither data nor a tensor.
    """
    target = checkpoint_path(path)
    tensors: dict[str, Tensor] = {}
    meta = json.dumps(_pack(content, "", tensors))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # Not from `tempfile`, whose files nobody else may ever read: a checkpoint follows the umask.
        with temporary.open("xb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "meta": meta, "tensors": tensors}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # torch's zip writer reports a full disk this way
            raise OSError(f"could not write the checkpoint {target}: {error}") from error
        raise
    return target


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_checkpoint` was given: tensors stay tensors (on the CPU), arrays arrays, bytes bytes.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint of this project, or of another version.
    """
    source = Path(path)
    if not source.exists() and checkpoint_path(source).exists():
        source = checkpoint_path(source)
    if source.is_dir() or not source.exists():
        what = "is a directory" if source.is_dir() else "does not exist"
        raise CheckpointError(f"no checkpoint at {source}: it {what}; name a {SUFFIX} file")
    try:
        file = source.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {source}: {error.strerror or error}") from error
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, seek, unpickling, decoding errors of many types: we did not write this
        raise CheckpointError(
            f"{source} is not a whole checkpoint of this project (truncated, damaged or foreign): use another one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{source} was not written by this project: it has no '{FORMAT}' header")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{source} has checkpoint format version {content.get('version')}, this code reads {VERSION}: "
            "use the release that wrote it"
        )
    try:
        unpacked = _unpack(json.loads(content["meta"]), content["tensors"])
        if not isinstance(unpacked, dict):
            raise TypeError(f"the content is of type {type(unpacked).__name__}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} is damaged: its parts do not fit together; use another one"
        ) from error
    return unpacked


def _pack(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Mapping):
        if _MARK in value:
            raise TypeError(f"a checkpoint cannot hold the name {_MARK!r} (at {where or 'the top'})")
        return {str(name): _pack(item, f"{where}/{name}", tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{where}/{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, (bytes, bytearray)):
        return _stored(np.frombuffer(bytes(value), dtype=np.uint8), "bytes", tensors)
    if isinstance(value, np.ndarray):
        return _stored(value, "array", tensors)
    if isinstance(value, Tensor):
        return _stored(value, "tensor", tensors)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {where or 'the top'})")


def _stored(value: Tensor | NDArray[Any], kind: str, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Add a copy of `value` to `tensors`; returns what stands for it in the JSON."""
    # A copy: a view would drag its whole storage into the file. Numbers for keys: paths through the content
    # may be the same, as those of {"a/b": x} and {"a": {"b": y}}.
    key = str(len(tensors))
    if isinstance(value, Tensor):
        tensors[key] = value.detach().to("cpu", copy=True)
    else:
        tensors[key] = torch.from_numpy(np.ascontiguousarray(value).copy()).reshape(value.shape)
    return {_MARK: key, "as": kind}


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {name: _unpack(item, tensors) for name, item in value.items()}
    tensor = tensors[value[_MARK]]
    if value["as"] == "bytes":
        return tensor.numpy().tobytes()
    return tensor.numpy() if value["as"] == "array" else tensor
