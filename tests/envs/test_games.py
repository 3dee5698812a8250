import struct

import numpy as np
import pytest

from envs import native
from envs.games import (
    EXPLORATION_LEVELS,
    GAMES,
    MODES,
    TASK_SETS,
    expand_games,
    game_problems,
    normalized_score,
    score_range,
)
from envs.native import BUTTON_COMBOS, NO_OP, level_state

NATIVE_MODES = ("easy", "hard", "extreme", "memory")


def native_facts(state: bytes) -> dict[str, object]:
    """The head of a native state, in the order of Game::serialize (procgen/src/game.cpp)."""
    offset = 0

    def integer() -> int:
        nonlocal offset
        offset += 4
        return int(struct.unpack_from("<i", state, offset - 4)[0])

    def text() -> str:
        nonlocal offset
        size = integer()
        offset += size
        return state[offset - size : offset].decode()

    integer()  # version
    name = text()
    for _ in range(13):  # options, grid_step
        integer()
    low, high = integer(), integer()
    integer(), integer()  # game_type, game_n
    for _ in range(2):  # two random generators
        integer(), text()
    for _ in range(4):  # reward, done, level_complete, action
        integer()
    return {"game": name, "levels": (low, high), "time_limit": integer()}


def test_the_table_lists_what_the_library_has():
    native._env_class()  # imports the library without its warnings
    from procgen import env as library

    assert list(GAMES) == library.ENV_NAMES
    assert library.EXPLORATION_LEVEL_SEEDS == EXPLORATION_LEVELS
    assert set(MODES) == set(library.DISTRIBUTION_MODE_DICT)
    combos = library.BaseProcgenEnv.get_combos(None)
    assert tuple(combos) == BUTTON_COMBOS
    assert combos[NO_OP] == ()


@pytest.mark.parametrize("name", GAMES)
def test_every_mode_exists_and_has_the_step_limit_of_the_table(name):
    game = GAMES[name]
    for mode in set(game.modes) & set(NATIVE_MODES):
        facts = native_facts(level_state(name, mode, 5))
        assert facts == {"game": name, "levels": (5, 6), "time_limit": game.limit(mode)}


def test_modes_as_documented():
    having = {mode: {game.name for game in GAMES.values() if mode in game.modes} for mode in MODES}
    assert having["easy"] == having["hard"] == set(GAMES)
    assert having["memory"] == {"caveflyer", "dodgeball", "heist", "jumper", "maze", "miner"}
    assert having["extreme"] == {"chaser", "dodgeball", "leaper", "starpilot"}
    assert having["exploration"] == set(EXPLORATION_LEVELS)


def test_task_sets_are_those_of_the_paper():
    assert TASK_SETS["easy6"] == ("bigfish", "fruitbot", "maze", "leaper", "plunder", "starpilot")
    assert TASK_SETS["memory4"] == ("dodgeball", "heist", "maze", "miner")
    assert len(TASK_SETS["all16"]) == 16
    assert game_problems(TASK_SETS["easy6"], "easy") == []
    assert game_problems(TASK_SETS["memory4"], "memory") == []


@pytest.mark.parametrize(
    ("game", "mode", "value", "expected"),
    [
        ("bigfish", "easy", 1, 0.0),
        ("bigfish", "easy", 40, 1.0),
        ("bigfish", "hard", 20, 0.5),
        ("maze", "memory", 4, 0.0),
        ("fruitbot", "easy", -1.5, 0.0),
        ("starpilot", "extreme", 35, 1.0),
        ("coinrun", "exploration", 0, -1.0),
    ],
)
def test_normalized_score(game, mode, value, expected):
    assert normalized_score(game, mode, value) == pytest.approx(expected)


def test_normalized_score_of_an_array():
    scores = normalized_score("maze", "easy", np.array([[5.0, 10.0], [0.0, 7.5]]))
    np.testing.assert_allclose(scores, [[0, 1], [-1, 0.5]])


def test_only_easy_mode_uses_the_easy_range():
    for mode in MODES[1:]:
        assert score_range("heist", mode) == GAMES["heist"].hard
    assert score_range("heist", "easy") == GAMES["heist"].easy


def test_expand_games():
    assert expand_games("maze") == ("maze",)
    assert expand_games("maze, bigfish") == ("maze", "bigfish")
    assert expand_games(["bigfish", "memory4"]) == ("bigfish", "dodgeball", "heist", "maze", "miner")
    assert expand_games(["nonsense"]) == ("nonsense",)
    assert expand_games([]) == ()


@pytest.mark.parametrize(
    ("games", "mode", "expected"),
    [
        (["bigfsh"], "easy", "did you mean bigfish"),
        (["easy66"], "easy", "did you mean easy6"),
        (["maze"], "esay", "did you mean easy"),
        (["bigfish"], "memory", "'bigfish' has no memory mode"),
        (["maze"], "extreme", "'maze' has no extreme mode"),
        (["maze", "heist", "maze"], "easy", "'maze' is listed 2 times"),
        ([], "easy", "no games"),
    ],
)
def test_one_problem(games, mode, expected):
    problems = game_problems(games, mode)
    assert len(problems) == 1
    assert expected in problems[0]
    assert "\n" not in problems[0]


def test_all_problems_at_once():
    assert len(game_problems(["bigfsh", "coinrun", "chaser", "maze", "maze"], "memory")) == 4
