"""Settings as dataclasses: what is read, what is refused, and what comes out again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import (
    INCIDENTAL,
    INLINE,
    OneOf,
    Range,
    assign,
    check,
    check_value,
    choice,
    converted,
    descriptions,
    field_type,
    options,
    plain,
    problems,
    read,
)
from common.errors import UserError


@dataclass(frozen=True)
class Shape:
    """A shape.

    Attributes:
        area: of the
            whole.
    """

    area: Annotated[float, Range(0, open_low=True)] = 1.0


@dataclass(frozen=True)
class Round(Shape):
    """A round one.

    Attributes:
        radius: from the middle: to the border.
    """

    radius: Annotated[int, Range(1)] = 3


@dataclass(frozen=True)
class Square(Shape):
    """Without descriptions."""

    side: int = 2
    corners: int = 4

    def contradictions(self) -> list[str]:
        return [] if self.side * 2 == self.corners else ["side and corners disagree"]


@dataclass(frozen=True)
class Stranger(Shape):
    """That nobody knows."""


SHAPES: dict[str, type] = {"round": Round, "square": Square}


@dataclass(frozen=True)
class Inner:
    shape: Shape = choice(lambda: SHAPES, Round, option="form")
    width: Annotated[int, Range(1, 8)] = 4


@dataclass(frozen=True)
class Outer:
    """Everything.

    Attributes:
        names: texts.
    """

    names: tuple[str, ...] = ("a",)
    inner: Annotated[Inner, INLINE] = field(default_factory=Inner)
    second: Inner = field(default_factory=Inner)
    sizes: Annotated[tuple[int, ...], Range(1)] = (1, 2)
    span: Annotated[int | None, Range(1), INCIDENTAL] = None
    on: bool = True
    rate: float = 0.5
    kind: Annotated[str, OneOf(("fast", "slow"))] = "fast"
    file: Path | None = None


# Values


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
        (Annotated[int, Range(1)] | None, "7", 7),
        (str | None, "x", "x"),
        (Path, "a/b", Path("a/b")),
        (tuple[int, ...], "4", (4,)),
    ],
)
def test_words_become_values(hint: Any, word: str, value: object) -> None:
    result = check_value(field_type(hint), converted(field_type(hint), word))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("hint", "word", "wanted"),
    [
        (int, "x", "a whole number"),
        (int, "", "a whole number"),
        (int, "9" * 5000, "a whole number"),
        (int, "1.5", "a whole number"),
        (int, "15e-1", "a whole number"),
        (int, "1e400", "a whole number"),
        (int, "none", "a whole number"),
        (int | None, "1.5", "a whole number or none"),
        (float, "x", "a number"),
        (float, "nan", "a number"),
        (float, "inf", "a number"),
        (bool, "yes", "true or false"),
    ],
)
def test_other_words_say_what_is_wanted(hint: Any, word: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^{wanted}$"):
        check_value(field_type(hint), converted(field_type(hint), word))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, "1"),
        (float, True),
        (float, 10**400),
        (float, float("inf")),
        (bool, 1),
        (str, 1),
        (int, None),
        (tuple[int, ...], [1, "x"]),
        (tuple[int, ...], 1),
        (tuple[int, ...], None),
    ],
)
def test_values_of_another_type_are_refused(hint: Any, value: object) -> None:
    with pytest.raises(ValueError, match=r"^(a|true)"):
        check_value(field_type(hint), value)


def test_lists_are_tuples_and_whole_numbers_are_numbers() -> None:
    assert check_value(field_type(tuple[float, ...]), [1, 2.5]) == (1.0, 2.5)
    assert check_value(field_type(tuple[float, ...] | None), None) is None


def test_a_type_that_settings_cannot_have_is_a_bug() -> None:
    with pytest.raises(TypeError, match="cannot be of type"):
        field_type(list[int])


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Range(1), [1, 10**30], {0: "1 or more", float("nan"): "1 or more"}),
        (Range(0, open_low=True), [1e-300], {0.0: "more than 0"}),
        (Range(high=5), [-1e300, 5], {5.1: "at most 5"}),
        (Range(high=5, open_high=True), [4.9], {5: "less than 5"}),
        (Range(0, 1), [0, 1, 0.5], {-0.1: "0 or more", 1.1: "at most 1"}),
        (Range(0, 60_000, open_low=True), [60_000], {0: "more than 0", 60_001: "at most 60,000"}),
    ],
)
def test_ranges(limits: Range, inside: list[float], outside: dict[float, str]) -> None:
    assert [limits.refusal(value) for value in inside] == [None] * len(inside)
    assert {value: limits.refusal(value) for value in outside} == outside


# Reading


def read_outer(data: object, default: Outer = Outer()) -> tuple[Outer, list[str]]:
    found: list[str] = []
    return read(default, data, found), found


def test_what_is_left_out_comes_from_the_default() -> None:
    default = Outer(names=("x",), span=3)
    built, found = read_outer({"sizes": [4], "rate": 1, "span": None, "inner": {"width": 2}}, default)
    assert built == replace(default, sizes=(4,), rate=1.0, span=None, inner=Inner(width=2))
    assert type(built.rate) is float
    assert found == []


def test_everything_wrong_is_reported_at_once() -> None:
    built, found = read_outer(
        {
            "nams": 3,
            "rate": "fast",
            "on": 0,
            "inner": {"wide": 1, "shape": {"radius": "x"}},
            "second": 7,
            "sizes": [1, None],
        }
    )
    assert built == Outer()
    assert found == [
        "unknown setting 'nams': did you mean names? (known: names, inner, second, sizes, span, on, rate, kind, file)",
        "rate is 'fast': give a number",
        "on is 0: give true or false",
        "unknown setting 'wide': did you mean width? (known: shape, width)",
        "shape.radius is 'x': give a whole number",
        "second is 7: give an object with named fields",
        "sizes is [1, None]: give a list, each a whole number",
    ]


def test_a_name_chooses_a_dataclass_at_its_defaults() -> None:
    start = Outer(inner=Inner(Round(radius=9)))
    for given_shape in ("square", {"name": "square"}):
        built, found = read_outer({"inner": {"shape": given_shape}}, start)
        assert (built.inner.shape, found) == (Square(), [])
    built, _ = read_outer({"inner": {"shape": {"name": "round", "area": 5}}}, start)
    assert built.inner.shape == Round(5.0, radius=9)  # the present one keeps its settings


@pytest.mark.parametrize("shape", ["squar", {"name": 3}, {"name": None, "side": "x"}])
def test_what_belongs_to_an_unknown_name_is_not_judged(shape: object) -> None:
    built, found = read_outer({"inner": {"shape": shape}})
    assert built == Outer()
    assert len(found) == 1
    assert found[0].startswith("unknown form ")


def test_messages_stay_short() -> None:
    _, found = read_outer({"rate": "x" * 1000, "y" * 1000: 1, "kind": ["z" * 1000]})
    assert all(len(line) < 220 for line in found)


numbers = st.one_of(st.integers(1, 10**20), st.none())
shapes = st.one_of(
    st.builds(Round, st.floats(1e-9, 1e9), st.integers(1, 10**9)),
    st.builds(Square, st.floats(1e-9, 1e9), st.integers(-9, 9), st.integers(-9, 9)),
)
inners = st.builds(Inner, shapes, st.integers(1, 8))
outers = st.builds(
    Outer,
    st.lists(st.text(), max_size=3).map(tuple),
    inners,
    inners,
    st.lists(st.integers(1, 10**20), max_size=3).map(tuple),
    numbers,
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["fast", "slow"]),
    st.one_of(st.none(), st.just(Path("a/b"))),
)


@given(outers)
def test_what_was_written_is_read_again(settings: Outer) -> None:
    found: list[str] = []
    assert read(Outer(), json.loads(json.dumps(plain(settings))), found) == settings
    assert found == []


names_without_none = st.lists(st.text(min_size=1).filter(lambda text: text.lower() != "none"), max_size=3)


@given(outers, names_without_none, st.booleans())
def test_settings_by_name_are_read_again(settings: Outer, names: list[str], nested: bool) -> None:
    """One by one, as options and suites have them, or nested, as a stored configuration has them."""
    settings = replace(settings, names=tuple(names), second=Inner())
    by_name = {
        option.name: plain(option.value) for option in options(settings) if "second" not in option.path
    }
    found: list[str] = []
    data = plain(settings) if nested else by_name
    assert assign(Outer(), json.loads(json.dumps(data)), found) == settings
    assert found == []


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    ["names", "inner", "shape", "name", "sizes", "width", "span", "rate", "kind"]
                ),
                st.text(max_size=5),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(anything)
def test_whatever_is_read_becomes_settings_and_lines(data: object) -> None:
    for built, found in (read_outer(data), assigned(data)):
        assert all(isinstance(line, str) and "\n" not in line for line in found)
        assert isinstance(problems(built), list)
        assert read(Outer(), plain(built), found) == built


# By name


def assigned(data: object, start: Outer = Outer()) -> tuple[Outer, list[str]]:
    found: list[str] = []
    return assign(start, data, found), found


@pytest.mark.parametrize(
    "data",
    [
        {"form": "square", "shape.side": 5},
        {"shape.side": 5, "form": "square"},
        {"shape": {"side": "5"}, "inner": {"shape": "square"}},
        {"inner": {"shape": {"name": "square", "side": 5.0}}},
        {"inner.shape.name": "square", "inner.shape.side": 5},
    ],
)
def test_names_may_be_dotted_or_nested_and_in_any_order(data: object) -> None:
    built, found = assigned(data)
    assert (built.inner.shape, found) == (Square(side=5), [])


def test_texts_are_read_as_on_a_command_line() -> None:
    built, found = assigned(
        {"names": "x", "sizes": ["1e3", 4], "span": "none", "rate": "1e-3", "kind": "slow", "width": 2.0},
        Outer(span=4),
    )
    assert built == Outer(("x",), Inner(width=2), sizes=(1000, 4), rate=1e-3, kind="slow")
    assert found == []
    assert assigned({"names": [50, "never"]})[0].names == ("50", "never")


def test_what_cannot_be_assigned() -> None:
    built, found = assigned(
        {"form": "squar", "shape": {"side": 1}, "inner.shape.x": 2, "widht": 3, "second": 5, "span": "x"}
    )
    assert built == Outer()
    assert found == [
        "unknown form 'squar': did you mean square? (known: round, square)",
        "unknown setting 'widht': did you mean width?",
        "second is 5: give an object with named fields",
        "span is 'x': give a whole number or none",
    ]
    assert assigned([1])[1] == ["the configuration is [1]: give an object with named fields"]


def test_options_are_named_as_users_write_them() -> None:
    found = {option.name: option for option in options(Outer(inner=Inner(Square())))}
    assert list(found)[:5] == ["names", "form", "shape.area", "shape.side", "shape.corners"]
    assert {"width", "second.width", "second.shape.radius", "span"} <= set(found)
    form = found["form"]
    assert (form.value, list(form.choices), form.path) == (
        "square",
        ["round", "square"],
        ("inner", "shape", "name"),
    )
    assert INCIDENTAL in found["span"].type.constraints
    assert found["names"].description == "texts."
    assert replace(found["span"], name="a.b_c").flag == "--a.b-c"


def test_descriptions_come_from_base_classes_too() -> None:
    assert descriptions(Round) == {"area": "of the whole.", "radius": "from the middle: to the border."}
    assert descriptions(Inner) == {}


# Checking


def test_good_settings_have_no_problems() -> None:
    assert problems(Outer()) == []
    check(Outer(span=7, inner=Inner(Square(side=2))))


def test_all_problems_are_found_with_their_names() -> None:
    settings = Outer(
        names=(3,),  # type: ignore[arg-type]
        inner=Inner(Round(area=0.0, radius=0), width=9),
        second=Inner(Stranger()),
        sizes=(1, 0),
        span=0,
        rate=float("nan"),
        kind="slwo",
    )
    assert problems(settings, "outer.") == [
        "outer.names is (3,): give a list, each a text",
        "outer.shape.area is 0.0: give more than 0",
        "outer.shape.radius is 0: give 1 or more",
        "outer.width is 9: give at most 8",
        "outer.second.shape is a Stranger, which no form has: register it, or use another",
        "outer.sizes is 0: give 1 or more",
        "outer.span is 0: give 1 or more, or none",
        "outer.rate is nan: give a number",
        "unknown outer.kind 'slwo': did you mean slow? (known: fast, slow)",
    ]
    with pytest.raises(UserError, match=r"^9 problems: outer.names"):
        check(settings, "outer.")


def test_contradictions_are_asked_for_only_if_each_field_is_right() -> None:
    assert problems(Outer(inner=Inner(Square(side=3)))) == ["side and corners disagree"]
    assert problems(Outer(inner=Inner(Square(side=3, area=-1.0)))) == ["shape.area is -1.0: give more than 0"]
