"""ProcGen environments: games, levels, the vectorised multi-game environment and the single-game one."""

from common import silence_gym

silence_gym()

from envs.checks import environment_problems
from envs.games import (
    GAMES,
    MODES,
    TASK_SETS,
    Game,
    ScoreRange,
    expand_games,
    game_problems,
    normalized_score,
    score_range,
)
from envs.grouped import GroupedVecEnv, grouped_procgen, tasks_at_once
from envs.gym_env import ProcgenEnv, environment_id
from envs.gym_vector import ProcgenVectorEnv
from envs.levels import SPLITS, Levels, parse_levels
from envs.native import (
    ACTION_NAMES,
    BUTTON_COMBOS,
    FRAMES_PER_SECOND,
    IMAGE_SHAPE,
    NO_OP,
    NUM_ACTIONS,
    library_version,
)
from envs.stream import StreamVecEnv, TaskDuration, parse_task_duration
from envs.tasks import Task, parse_task
from envs.twists import TWISTS, Twist, parse_twist
from envs.vec_env import ProcgenVecEnv

__all__ = [
    "TWISTS",
    "Twist",
    "ACTION_NAMES",
    "BUTTON_COMBOS",
    "FRAMES_PER_SECOND",
    "GAMES",
    "IMAGE_SHAPE",
    "MODES",
    "NO_OP",
    "NUM_ACTIONS",
    "SPLITS",
    "TASK_SETS",
    "Game",
    "GroupedVecEnv",
    "Levels",
    "ProcgenEnv",
    "ProcgenVecEnv",
    "ProcgenVectorEnv",
    "ScoreRange",
    "Task",
    "TaskDuration",
    "StreamVecEnv",
    "environment_id",
    "environment_problems",
    "expand_games",
    "game_problems",
    "grouped_procgen",
    "library_version",
    "normalized_score",
    "parse_twist",
    "parse_levels",
    "parse_task",
    "parse_task_duration",
    "score_range",
    "tasks_at_once",
]
