"""The parts of Stable-Baselines3 that users put around an environment work unchanged."""

import av
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor, VecVideoRecorder

from envs import ProcgenVecEnv


class RandomModel:
    def __init__(self, env):
        self.env = env
        self.generator = np.random.default_rng(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert episode_start.shape == (self.env.num_envs,)
        return self.generator.integers(15, size=len(observation["rgb"])), state


def test_vec_monitor_agrees_with_our_statistics():
    inner = ProcgenVecEnv("starpilot,chaser", 4, num_threads=0)
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        env = VecMonitor(inner, info_keywords=("game", "level_seed"))
    env.reset()
    seen = []
    original = inner._describe_ended

    def spy(ended, infos):
        original(ended, infos)
        seen.extend(infos[i]["episode"] for i in ended)

    inner._describe_ended = spy
    episodes = []
    for _ in range(250):
        infos = env.step(np.random.default_rng(0).integers(15, size=4))[3]
        episodes += [info["episode"] for info in infos if info]
    assert len(episodes) > 3
    for monitor, ours in zip(episodes, seen, strict=True):
        assert monitor["r"] == pytest.approx(ours["r"])
        assert monitor["l"] == ours["l"]
        assert monitor["game"] in inner.games
    assert env.get_attr("game") == ["starpilot", "chaser"] * 2
    env.close()


def test_evaluate_policy_counts_our_episodes_without_a_warning():
    env = ProcgenVecEnv("starpilot,chaser", 4, num_threads=0)
    returns, lengths = evaluate_policy(RandomModel(env), env, n_eval_episodes=8, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 8
    assert all(0 < length < 1000 for length in lengths)
    assert sum(returns) > 0
    env.close()


@pytest.mark.filterwarnings("ignore")  # of moviepy and what it imports
def test_vec_video_recorder_writes_a_film(tmp_path, capsys):
    env = VecVideoRecorder(
        ProcgenVecEnv("maze,bigfish", 4, render_mode="rgb_array", num_threads=0),
        str(tmp_path),
        record_video_trigger=lambda step: step == 0,
        video_length=4,
    )
    env.reset()
    for _ in range(6):
        env.step(np.zeros(4, dtype=int))
    env.close()
    (film,) = tmp_path.glob("*.mp4")
    with av.open(str(film)) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height) == (1024, 1024)
        assert stream.average_rate == 15
        assert sum(1 for _ in video.decode(stream)) == 5
