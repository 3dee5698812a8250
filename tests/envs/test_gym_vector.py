"""ProcGen as gymnasium's vector environment, and a training script in CleanRL's style that uses it unchanged."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

import envs
from common.errors import UserError
from envs import ProcgenVecEnv, ProcgenVectorEnv

vector = gymnasium.vector
modes = pytest.mark.skipif(not hasattr(vector, "AutoresetMode"), reason="gymnasium before 1.1")


def make(game: str = "bigfish", num_envs: int = 3, **more: object) -> ProcgenVectorEnv:
    made = gymnasium.make_vec(envs.environment_id(game), num_envs=num_envs, num_threads=0, **more)
    assert isinstance(made, ProcgenVectorEnv)
    return made


def test_make_vec_gives_the_native_environment_with_its_arguments() -> None:
    env = make("heist", mode="memory", levels="30:32")
    observation, infos = env.reset(seed=1)
    assert observation in env.observation_space
    assert set(infos["level_seed"]) <= {30, 31}
    with pytest.raises(UserError, match="no memory mode"):
        make("bigfish", mode="memory")
    env.close()


def test_it_plays_what_the_environment_of_stable_baselines3_plays() -> None:
    env, other = make(num_envs=4), ProcgenVecEnv(["bigfish"], 4, seed=7, num_threads=0)
    observation, _ = env.reset(seed=7)
    expected = other.reset()
    random, ended = np.random.default_rng(0), 0
    for _ in range(300):
        np.testing.assert_array_equal(observation["rgb"], expected["rgb"])
        np.testing.assert_array_equal(observation["reward"], expected["reward"])
        actions = random.integers(15, size=4)
        observation, rewards, terminations, truncations, infos = env.step(actions)
        expected, theirs, dones, facts = other.step(actions)
        np.testing.assert_array_equal(rewards, theirs)
        np.testing.assert_array_equal(terminations | truncations, dones)
        assert [fact.get("TimeLimit.truncated", False) for fact in facts] == truncations.tolist()
        for slot in np.flatnonzero(dones):
            ended += 1
            assert infos["_prev_level_seed"][slot]
            assert infos["prev_level_seed"][slot] == facts[slot]["prev_level_seed"]
            assert infos["normalized_return"][slot] == pytest.approx(facts[slot]["normalized_return"])
    assert ended > 0
    env.close()
    other.close()


def test_the_seed_decides_the_levels() -> None:
    env = make("maze")
    levels = [tuple(env.reset(seed=seed)[1]["level_seed"]) for seed in (3, 3, 4)]
    assert levels[0] == levels[1] != levels[2]
    assert tuple(env.reset()[1]["level_seed"]) != levels[2]  # it goes on drawing
    with pytest.raises(UserError, match="a single seed"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="no reset options"):
        env.reset(options={"x": 1})
    env.close()


@modes
def test_the_wrappers_of_gymnasium_keep_statistics() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make("dodgeball", 4))
    env.action_space.seed(0)
    env.reset(seed=0)
    returns, found = np.zeros(4), 0
    for _ in range(200):
        _, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
        returns += rewards
        for slot in np.flatnonzero(terminations | truncations):
            found += 1
            assert infos["episode"]["r"][slot] == returns[slot]
            returns[slot] = 0
    assert found > 0
    env.close()


def test_frames_are_rendered() -> None:
    env = make(num_envs=2, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None
    assert [frame.shape for frame in frames] == [(512, 512, 3)] * 2
    env.close()


class Network(nn.Module):
    """As small as CleanRL's, of the same parts."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU()
        )
        self.actor, self.critic = nn.Linear(32, num_actions), nn.Linear(32, 1)

    def forward(self, rgb: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.body(rgb.permute(0, 3, 1, 2) / 255.0)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1)


@modes
def test_a_script_in_the_style_of_cleanrl() -> None:
    """PPO in one function, as people write it around `make_vec`: it fills its buffers, learns, and counts episodes."""
    torch.manual_seed(0)
    num_envs, num_steps, gamma = 8, 32, 0.99
    venv = gymnasium.make_vec(
        "Procgen/dodgeball-v0", num_envs=num_envs, vectorization_mode="vector_entry_point"
    )
    venv = gymnasium.wrappers.vector.RecordEpisodeStatistics(venv)
    agent = Network(venv.single_action_space.n)
    optimizer = torch.optim.Adam(agent.parameters(), lr=5e-4, eps=1e-5)
    obs = torch.zeros(num_steps, num_envs, *venv.single_observation_space["rgb"].shape)
    actions, logprobs, rewards, dones, values = (torch.zeros(num_steps, num_envs) for _ in range(5))
    before = [parameter.clone() for parameter in agent.parameters()]
    episodes = 0
    next_obs, _ = venv.reset(seed=1)
    next_done = torch.zeros(num_envs)
    for _ in range(3):
        for step in range(num_steps):
            obs[step], dones[step] = torch.tensor(next_obs["rgb"]), next_done
            with torch.no_grad():
                policy, values[step] = agent(obs[step])
                action = policy.sample()
                logprobs[step] = policy.log_prob(action)
            actions[step] = action
            next_obs, reward, terminations, truncations, infos = venv.step(action.numpy())
            rewards[step] = torch.tensor(reward)
            next_done = torch.tensor(terminations | truncations, dtype=torch.float32)
            if "episode" in infos:
                episodes += int(infos["_episode"].sum())
        with torch.no_grad():
            returns, following = torch.zeros_like(rewards), agent(torch.tensor(next_obs["rgb"]))[1]
            for t in reversed(range(num_steps)):
                ended = next_done if t == num_steps - 1 else dones[t + 1]
                following = returns[t] = rewards[t] + gamma * (1 - ended) * following
        policy, value = agent(obs.flatten(0, 1))
        ratio = (policy.log_prob(actions.flatten()) - logprobs.flatten()).exp()
        advantages = (returns - values).flatten()
        pg_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).mean()
        loss = pg_loss + 0.5 * (value - returns.flatten()).square().mean() - 0.01 * policy.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    venv.close()
    assert loss.isfinite()
    assert episodes > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, agent.parameters(), strict=True))
