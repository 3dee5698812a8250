from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import atomic_write, open_regular, partial_path, read_data, read_json, write_json


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


def kinds_of_no_file(folder: Path) -> list[Path]:
    """A pipe, a directory and a link to a device."""
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    (folder / "device").symlink_to("/dev/zero")
    return [folder / "pipe", folder / "directory", folder / "device"]


@pytest.mark.parametrize("mode", ["rb", "rb+", "ab"])
def test_nothing_but_files_is_opened_and_nothing_waits(mode: str, tmp_path: Path) -> None:
    for path in kinds_of_no_file(tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|s a directory"):
            open_regular(path, mode)


def test_a_link_is_not_followed_where_something_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "link").symlink_to("elsewhere")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"precious"
    for mode in ("rb+", "ab"):
        with pytest.raises(OSError, match="is not a regular file"):
            open_regular(tmp_path / "link", mode, follow=False)
    write_json(tmp_path / "link", 1)
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert read_json(tmp_path / "link") == 1


def test_a_file_can_be_appended_to_and_changed_in_place(tmp_path: Path) -> None:
    for part in (b"ab", b"cd"):
        with open_regular(tmp_path / "file", "ab", follow=False) as file:
            file.write(part)
    with open_regular(tmp_path / "file", "rb+", follow=False) as file:
        file.seek(1)
        file.write(b"X")
    assert (tmp_path / "file").read_bytes() == b"aXcd"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        write_json(tmp_path / "pipe", 1)
    assert (tmp_path / "pipe").is_fifo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "[" * 500_000),
        ("a.json", "[" * 50 + "]" * 50),
        ("a.json", '{"a": ' * 40 + "1" + "}" * 40),
        ("a.json", "9" * 500),
        ("a.json", "9" * 5000),
        ("a.toml", "a = " + "[" * 5000 + "]" * 5000),
        ("a.toml", "a = " + "9" * 5000),
        ("a.toml", "a." * 5000 + "b = 1"),
    ],
)
def test_data_beyond_all_measure_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="cannot be used") as raised:
        read_data(tmp_path / name)
    assert len(str(raised.value)) < 400


def test_a_text_of_enormous_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.json").touch()
    os.truncate(tmp_path / "long.json", 1 << 40)
    with pytest.raises(UserError, match="is longer than 64 MB"):
        read_data(tmp_path / "long.json")
