from __future__ import annotations

from dataclasses import dataclass

import pytest

from common.errors import UserError
from records.settings import build, check_value, parse_word, plain


@dataclass(frozen=True)
class Sizes:
    width: int = 4
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    span: int | None = None
    on: bool = True

    def __post_init__(self) -> None:
        if self.width == 13:
            raise UserError("13 is refused")


@pytest.mark.parametrize(
    ("hint", "word", "value"),
    [
        (int, "25_000_000", 25_000_000),
        (int, "25e6", 25_000_000),
        (int, "-3", -3),
        (float, "1e-4", 1e-4),
        (float, "3", 3.0),
        (str, "none", "none"),
        (int | None, "none", None),
        (int | None, "None", None),
        (int | None, "7", 7),
        (str | None, "x", "x"),
    ],
)
def test_words_become_values(hint: object, word: str, value: object) -> None:
    result = parse_word(hint, word)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("hint", "word", "wanted"),
    [
        (int, "x", "a whole number"),
        (int, "1.5", "a whole number"),
        (int, "15e-1", "a whole number"),
        (int, "1e400", "a whole number"),
        (int, "none", "a whole number"),
        (int | None, "1.5", "a whole number or none"),
        (float, "x", "a number"),
        (float, "nan", "a number"),
        (float, "inf", "a number"),
    ],
)
def test_other_words_say_what_is_wanted(hint: object, word: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^{wanted}$"):
        parse_word(hint, word)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, "1"),
        (float, True),
        (bool, 1),
        (str, 1),
        (int, None),
        (tuple[int, ...], [1, "x"]),
    ],
)
def test_values_of_another_type_are_refused(hint: object, value: object) -> None:
    with pytest.raises(ValueError, match=r"^(a|true)"):
        check_value(hint, value)


def test_build_takes_what_is_given_and_the_rest_from_the_fallback() -> None:
    problems: list[str] = []
    fallback = Sizes(width=9, span=3)
    built = build(Sizes, {"names": ["b", "c"], "rate": 1, "span": None}, fallback, problems)
    assert built == Sizes(width=9, rate=1.0, names=("b", "c"), span=None)
    assert isinstance(built.rate, float)
    assert problems == []


def test_build_reports_everything_at_once() -> None:
    problems: list[str] = []
    built = build(Sizes, {"widht": 3, "rate": "fast", "on": 0, "width": 13}, Sizes(), problems, "core.")
    assert built == Sizes()
    assert problems == [
        "unknown core setting 'widht': did you mean width? (known: width, rate, names, span, on)",
        "core.rate is 'fast': give a number",
        "core.on is 0: give true or false",
        "13 is refused",
    ]


def test_build_refuses_what_is_not_an_object() -> None:
    problems: list[str] = []
    build(Sizes, [1], Sizes(), problems, "core.")
    assert problems == ["core is [1]: give an object with named fields"]


def test_plain_is_json() -> None:
    assert plain(Sizes()) == {"width": 4, "rate": 0.5, "names": ["a"], "span": None, "on": True}
