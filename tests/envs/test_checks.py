from typing import Any

import pytest

from common.errors import UserError
from envs import ProcgenVecEnv, native
from envs.checks import default_num_envs, environment_problems
from envs.levels import Levels


@pytest.fixture
def _no_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> None:
        raise AssertionError("the native library was used before the arguments were checked")

    monkeypatch.setattr(native, "_env_class", touched)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"games": ["bigfsh"]}, "did you mean bigfish"),
    ({"games": []}, "no games"),
    ({"games": ["maze", "maze"]}, "listed 2 times"),
    ({"mode": "memory", "games": ["bigfish"]}, "no memory mode"),
    ({"mode": "medium"}, "unknown mode 'medium'"),
    ({"games": ["maze", "heist", "miner"], "num_envs": 64}, "64 environments .* use 63 or 66"),
    ({"games": "easy6", "num_envs": 5}, "use 6$"),
    ({"num_envs": 0}, "at least 1 needed"),
    ({"levels": "tset1"}, "did you mean test1"),
    ({"levels": "10:10"}, "empty"),
    ({"levels": Levels("x", 2**31 - 2, 5)}, "between 0 and"),
    ({"seed": -1}, "seed -1"),
    ({"seed": 2**31}, "seed 2147483648"),
    ({"render_mode": "human"}, "render mode 'human'"),
    ({"num_threads": -1}, "num_threads is -1"),
    ({"level_seeds": [1, 2, 3], "num_envs": 2}, "3 level seeds for 2 environments"),
    ({"level_seeds": [5, -3]}, "level seeds must be from 0 to .* not -3"),
    ({"level_seeds": [1], "mode": "exploration"}, "leave the level seeds out"),
]


@pytest.mark.usefixtures("_no_native_library")
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_give_one_line_before_the_library_is_used(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        ProcgenVecEnv(**{"games": ["maze"], **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_no_native_library")
def test_all_contradictions_are_named_at_once():
    with pytest.raises(UserError) as caught:
        ProcgenVecEnv(["bigfsh", "coinrun"], num_envs=7, mode="memory", levels="5:1", seed=-2)
    message = str(caught.value)
    for part in ("bigfsh", "no memory mode", "7 environments", "'5:1' are empty", "seed -2"):
        assert part in message
    assert "\n" not in message


def test_good_arguments_have_no_problems():
    assert (
        environment_problems(["maze", "heist"], 4, "memory", "test2", 3, "rgb_array", 0, [1, 2, 3, 4]) == []
    )


def test_default_number_of_environments_is_the_next_multiple_of_the_games():
    assert [default_num_envs(games) for games in (1, 3, 6, 16, 64)] == [64, 66, 66, 64, 64]
    assert default_num_envs(1, level_seeds=[4, 5, 6]) == 3
    assert default_num_envs(0) == 64
