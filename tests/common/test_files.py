from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import atomic_write, partial_path, read_data, write_json


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write("ä")
        assert not path.exists()
    assert path.read_bytes() == "ä".encode()
    with atomic_write(path, "wb", durable=False) as file:
        file.write(b"new")
        assert path.read_text() == "ä"
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError(), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_if_writing_fails(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_who_may_read_it_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "file", {"a": (1, None)})
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert json.loads((tmp_path / "file").read_text()) == {"a": [1, None]}


def test_names_of_unfinished_files_do_not_meet(tmp_path: Path) -> None:
    names = {partial_path(tmp_path / "x").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(".x.") and name.endswith(".partial") for name in names)


def test_data_is_toml_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("x = [1, 2]\n[y]\nz = 1e6")
    (tmp_path / "a.json").write_text('{"x": [1, 2], "y": {"z": 1e6}}')
    assert read_data(tmp_path / "a.toml") == read_data(tmp_path / "a.json") == {"x": [1, 2], "y": {"z": 1e6}}


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.toml", b"x = ", "not TOML"),
        ("a.json", b"{", "not JSON"),
        ("a.txt", b"x = 1", "not JSON"),
        ("a.json", b"\xff\xfe", "it is not text"),
        ("a.json", None, "cannot be read: No such file"),
    ],
)
def test_other_data_is_refused(name: str, content: bytes | None, part: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=part) as raised:
        read_data(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
