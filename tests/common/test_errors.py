from __future__ import annotations

import pytest

from common.errors import UserError, printable, shown, unknown_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ä ± \u4e2d", "ä ± \u4e2d"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J\x07\r\x9b", r"\x1b[2J\x07\r\x9b"),
        ("a\u202eb", r"a\u202eb"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_its_number(text: str, expected: str) -> None:
    assert printable(text) == str(UserError(text)) == expected


def test_messages_are_not_as_long_as_what_they_are_about() -> None:
    assert len(printable("x" * 10**6)) < 5000
    assert len(unknown_name("game", "x" * 10**6, ["maze"])) < 200
    for value in ("x" * 10**6, b"x" * 10**6, 10**5000, [[1] * 1000]):
        assert len(shown(value)) <= 60
