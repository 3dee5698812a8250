"""Checkpoints of format version 1: what `torch.save` made of a dictionary with JSON and tensors.

``torch.load(weights_only=True)`` executes nothing, but believes what a file says about itself: it neither looks at
the checksums in it nor asks how much memory a tensor will take. So the archive is judged before it is loaded.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from agents.checkpoint import FORMAT, VERSION, CheckpointError, not_whole, unknown_version

_PLAIN_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(
        f"torch {kind}Storage"
        for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
    ),
}
_IMPORTS_BY_STACK = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def read_v1(file: IO[bytes], size: int, source: Path) -> tuple[Any, dict[str, Tensor]]:
    """The JSON and the tensors in a file of `size` bytes that starts like a zip archive.

    Raises:
        CheckpointError: it is damaged, foreign, of another version, or holds anything but plain tensors.
    """
    try:
        _judge(file, size)
        file.seek(0)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, seek, unpickling, decoding errors of many types: we did not write this
        raise not_whole(source) from error
    if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
        raise CheckpointError(f"{source} was not written by this project: it has no '{FORMAT}' header")
    version = loaded.get("version")
    if version != 1:
        raise not_whole(source) if version == VERSION else unknown_version(source, version)
    try:
        tensors = {str(name): _plain(tensor) for name, tensor in loaded["tensors"].items()}
        return json.loads(loaded["meta"]), tensors
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is damaged: its parts do not fit together; use another one"
        ) from error


def _judge(file: IO[bytes], size: int) -> None:
    """Raise ValueError for an archive that is compressed, damaged, or that mentions anything but tensors."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("entries overlap")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"{bad} is damaged")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _judge_pickle(archive.read(entry))


def _judge_pickle(data: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _IMPORTS_BY_STACK or (
            opcode.name == "GLOBAL" and str(argument) not in _PLAIN_NAMES
        ):
            raise ValueError(f"{opcode.name} {argument}")


def _plain(value: object) -> Tensor:
    """`value`, if it is a tensor with memory for each of its elements: a view can pretend to any length."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise TypeError("not a plain tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("longer than its memory")
    return value.detach()
