import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import UserError
from envs.levels import MAX_LEVEL, SPLITS, Levels, parse_levels


@pytest.mark.parametrize(
    ("text", "mode", "start", "count"),
    [
        ("train", "easy", 0, 200),
        ("train", "hard", 0, 200),
        ("train", "memory", 0, 500),
        ("test1", "easy", 1000, 200),
        ("test2", "memory", 1200, 200),
        ("test3", "hard", 1400, 200),
        ("all", "easy", 0, 0),
        ("0:1", "easy", 0, 1),
        (" 200:700 ", "easy", 200, 500),
        (f"{MAX_LEVEL}:{MAX_LEVEL + 1}", "easy", MAX_LEVEL, 1),
    ],
)
def test_levels(text, mode, start, count):
    assert parse_levels(text, mode) == Levels(text.strip(), start, count)


def test_test_splits_share_no_level_with_training():
    for mode in ("easy", "memory"):
        splits = [set(parse_levels(name, mode).seeds) for name in SPLITS if name != "all"]
        assert len(set.union(*splits)) == sum(map(len, splits))


@given(st.integers(0, MAX_LEVEL), st.integers(1, MAX_LEVEL + 1))
def test_ranges_mean_what_python_ranges_mean(start, end):
    if start < end:
        levels = parse_levels(f"{start}:{end}", "easy")
        assert levels.seeds == range(start, end)
        assert parse_levels(str(levels), "easy") == levels
    else:
        with pytest.raises(UserError, match="empty"):
            parse_levels(f"{start}:{end}", "easy")


@given(st.text())
@example("1:2:3")
@example("-1:5")
@example("1:\n5")
@example("\u0663:\u0665")  # digits, but not ASCII
@example("0:99999999999")
@example("0x1:0x5")
@example("")
def test_any_text_gives_levels_that_the_library_can_play_or_one_line(text):
    try:
        levels = parse_levels(text, "easy")
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert 0 <= levels.start <= levels.start + levels.count <= MAX_LEVEL + 1
    assert len(message.splitlines()) <= 1


def test_typing_errors_are_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="did you mean train"):
        parse_levels("trian", "easy")


def test_unlimited_levels_cannot_be_listed():
    with pytest.raises(UserError, match="unlimited"):
        parse_levels("all", "easy").seeds  # noqa: B018
