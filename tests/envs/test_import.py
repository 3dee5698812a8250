import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, warnings
warnings.simplefilter("default")
import envs
env = envs.ProcgenVecEnv(["maze", "bigfish"], num_envs=2, render_mode="rgb_array", num_threads=0)
env.reset()
env.step(env.action_space.sample() * env.game_of_slot)
assert env.render().shape == (512, 1024, 3) or env.render().shape == (1024, 512, 3)
env.close()
displays = {"glfw", "moderngl", "pyglet", "pygame", "tkinter", "cv2"} & set(sys.modules)
assert not displays, displays
"""


def test_no_banner_no_warning_and_no_display_library():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
