"""A sequence of three tasks that a small network learns in seconds, with a known order of the methods.

$ python -m benchmarks.toy_sequence --out benchmarks/results/toy_sequence.json

The upper half of a frame is the task's signature, a colour; in the lower half one of three channels c is bright, and in
task k action (c + k) mod 3 pays 1. Episodes last 5 to 8 steps. What a method is good for shows in the scores of the
earlier tasks, where chance is 1/3. Without signatures (``control``), only a policy that is told its task can keep them.

The known order: fine-tuning loses the earlier tasks, training on all at once has them all; penalties, and the replay of
features, come between, and the replay of frames comes nearest. A policy that is told its task and has heads for each
loses nothing here, whatever the method: the tasks differ in their answers alone.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents import ALGORITHMS, Agent
from agents.acting import Actor
from agents.retention import RetentionConfig
from benchmarks.machine import describe_machine
from common.cli import run_with_options
from policies import PolicyConfig, TaskConfig, core_config
from policies.encoders.small_frames import SmallFramesConfig

TASKS = 3
SIGNATURES = np.array([[255, 255, 0], [0, 255, 255], [255, 0, 255]], np.uint8)


class SignedFrames(VecEnv):
    """Environments that play one task each."""

    def __init__(self, tasks: list[int], seed: int, signed: bool = True, once: bool = False) -> None:
        """`signed`: whether frames show the task; `once`: only in the first frame of an episode."""
        image = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        reward = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        space = gymnasium.spaces.Dict(rgb=image, reward=reward)
        super().__init__(len(tasks), space, gymnasium.spaces.Discrete(3))
        self.tasks = np.array(tasks)
        self.random = np.random.default_rng(seed)
        self.signed, self.once = signed, once
        self._bright = np.zeros(self.num_envs, np.int64)
        self._left = np.zeros(self.num_envs, np.int64)
        self._actions = np.zeros(self.num_envs, np.int64)

    def _observe(self, rewards: NDArray[np.float32], starts: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        self._bright = self.random.integers(3, size=self.num_envs)
        self._left = np.where(starts, self.random.integers(5, 9, size=self.num_envs), self._left)
        rgb = np.zeros((self.num_envs, 8, 8, 3), np.uint8)
        if self.signed:
            shown = starts if self.once else np.ones_like(starts)
            rgb[shown, :4] = SIGNATURES[self.tasks[shown]][:, None, None]
        rgb[np.arange(self.num_envs), 4:, :, self._bright] = 255
        return {"rgb": rgb, "reward": rewards[:, None]}

    def reset(self) -> dict[str, NDArray[Any]]:
        return self._observe(np.zeros(self.num_envs, np.float32), np.ones(self.num_envs, bool))

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        rewards = (self._actions == (self._bright + self.tasks) % 3).astype(np.float32)
        self._left -= 1
        dones = self._left == 0
        return self._observe(rewards, dones), rewards, dones, [{} for _ in self.tasks]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [f"task{task}" for task in self.tasks] if attr_name == "game" else [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "game"

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


@dataclass(frozen=True)
class Method:
    """How a sequence is trained.

    Attributes:
        retention: names of methods.
        retain: their settings.
        told: whether the policy is told its task, and has heads for each.
        joint: all tasks at once instead of one after the other.
    """

    retention: str = "none"
    retain: dict[str, Any] = field(default_factory=dict)
    told: bool = False
    joint: bool = False


METHODS = {
    "none": Method(),
    "joint": Method(joint=True),
    "none, told": Method(told=True),
    "ewc": Method("ewc", {"ewc_strength": 100.0}),
    "online_ewc": Method("online_ewc", {"online_ewc_strength": 10.0}),
    "si": Method("si", {"si_strength": 10.0}),
    "wpl": Method("wpl", {"wpl_strength": 100.0}),
    "generative": Method("generative", {"generative_strength": 3.0, "online_ewc_strength": 10.0}),
    "features-kept": Method(
        "generative",
        {
            "generative_level": "features-kept",
            "generative_strength": 100.0,
            "online_ewc_strength": 10.0,
            "replay_steps": 20_000,
        },
    ),
    "clear": Method("clear", {"clear_policy_cost": 1.0, "clear_value_cost": 0.5, "replay_steps": 20_000}),
    "lwf": Method("lwf", told=True),
    "xdg": Method("xdg", {"gated_share": 0.67, "gated_apart": True}, told=True),
}
"""Strengths are tuned by hand for this sequence; how a step of these frames counts is not how one of a game does."""


@dataclass(frozen=True)
class Setup:
    """Sizes of the sequence.

    Attributes:
        core: of the policy.
        algorithm: that trains it.
        num_envs: environments.
        rollouts: of each task.
        signed: whether frames show their task.
        once: whether only the first frame of an episode does.
    """

    core: str = "feedforward"
    algorithm: str = "impala"
    num_envs: int = 32
    rollouts: int = 30
    signed: bool = True
    once: bool = False

    def env(self, tasks: list[int], seed: int) -> SignedFrames:
        """Environments that play these tasks by turns."""
        dealt = [tasks[index % len(tasks)] for index in range(self.num_envs)]
        return SignedFrames(dealt, seed, self.signed, self.once)

    def agent(self, method: Method, seed: int) -> Agent:
        """A fresh agent in the first task, or in all."""
        sizes: dict[str, Any] = {"lstm": {"hidden": 64}, "feedforward": {}}.get(
            self.core, {"width": 32, "heads": 2, "feedforward": 32, "layers": 1}
        )
        policy = PolicyConfig(
            core_config(self.core, **sizes), SmallFramesConfig(64, (32,), blocks=0, shrink=4)
        )
        if method.told:
            policy = replace(policy, tasks=TaskConfig(TASKS, "told", "per-task"))
        # A policy that is sure of an answer never finds out that another one pays now: so much entropy that it is 0.98.
        settings: dict[str, Any] = {"learning_rate": 1e-2, "discount": 0.0, "entropy_cost": 0.2}
        if self.algorithm != "ppo":
            settings |= {
                "learning_rate_decay": False,
                "optimizer": "adam",
                "batch_unrolls": self.num_envs // 4,
            }
        settings["rollout_steps"] = 10
        agent: Agent = ALGORITHMS[self.algorithm](
            policy,
            self.env(list(range(TASKS)) if method.joint else [0], seed),
            retention=method.retention,
            retain=RetentionConfig(**{"consolidation_rollouts": 4, **method.retain}),
            seed=seed,
            device="cpu",
            **settings,
        )
        return agent

    def run(self, method: Method, seed: int) -> list[float]:
        """Share of right actions in each task after the last one."""
        torch.manual_seed(seed)
        agent = self.agent(method, seed)
        steps = self.rollouts * self.num_envs * 10
        if method.joint:
            agent.actors.tell([index % TASKS for index in range(self.num_envs)])
            agent.learn(TASKS * steps)
        else:
            agent.learn(steps)
            for task in range(1, TASKS):
                agent.change_task(self.env([task], 100 * seed + task), task)
                agent.learn(steps, reset_num_timesteps=False)
        return [self.score(agent, task, seed) for task in range(TASKS)]

    def score(self, agent: Agent, task: int, seed: int) -> float:
        """Share of right actions in `task`, as the policy draws them."""
        env = self.env([task], 1000 + seed)
        actor = Actor(agent.policy, self.num_envs, agent.device, torch.Generator().manual_seed(seed))
        actor.tell(torch.full((self.num_envs,), task))
        observation, starts, rewards = env.reset(), np.ones(self.num_envs, bool), list[float]()
        for _ in range(30):
            step = actor.step(observation, starts)
            env.step_async(step.actions.numpy())
            observation, reward, starts, _ = env.step_wait()
            rewards.append(float(reward.mean()))
        return float(np.mean(rewards))


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        methods: names of the methods; none for all.
        seeds: how many.
        core: of the policy.
        algorithm: that trains it.
        control: leave the signatures out.
        once: show them only in the first frame of an episode.
        rollouts: of each task.
        out: file for the result; none only prints it.
    """

    methods: tuple[str, ...] | None = None
    seeds: int = 3
    core: str = "feedforward"
    algorithm: str = "impala"
    control: bool = False
    once: bool = False
    rollouts: int = 30
    out: Path | None = None


def main(options: Options) -> None:
    """Run the methods and print the scores of each task, means over seeds."""
    setup = Setup(
        options.core,
        options.algorithm,
        signed=not options.control,
        once=options.once,
        rollouts=options.rollouts,
    )
    began, scores = time.process_time(), {}
    for name in options.methods or METHODS:
        runs = [setup.run(METHODS[name], seed) for seed in range(options.seeds)]
        scores[name] = {"tasks": np.mean(runs, 0).round(3).tolist(), "seeds": np.round(runs, 3).tolist()}
        print(f"{name:15}", *(f"{score:.2f}" for score in np.mean(runs, 0)), flush=True)
    result = {
        "command": " ".join(["python -m benchmarks.toy_sequence", *sys.argv[1:]]),
        "machine": describe_machine(),
        "processor_seconds": round(time.process_time() - began, 1),
        "scores": scores,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run_with_options(Options, main, "python -m benchmarks.toy_sequence"))
