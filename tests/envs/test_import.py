import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, warnings
warnings.simplefilter("default")
import envs
env = envs.ProcgenVecEnv(["maze", "bigfish"], num_envs=2, render_mode="rgb_array", num_threads=0)
env.reset()
env.step(env.action_space.sample() * env.game_of_env)
assert env.render().shape == (512, 1024, 3) or env.render().shape == (1024, 512, 3)
env.close()
displays = {"glfw", "moderngl", "pyglet", "pygame", "tkinter", "cv2"} & set(sys.modules)
assert not displays, displays
"""


def run(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_no_banner_no_warning_and_no_display_library():
    assert run(PROGRAM) == (0, "", "")


@pytest.mark.parametrize(
    "first", ["agents.rewards", "envs.stream", "records.writers", "experiments.progress", "benchmarks.peers"]
)
def test_the_old_gym_says_nothing_whatever_is_imported_first(first: str) -> None:
    assert run(f"import {first}, agents, envs, sys; assert 'gym' in sys.modules") == (0, "", "")
