"""Score an agent by a protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents import Agent
from agents.acting import greedy
from common.errors import raise_problems
from envs import Levels, ProcgenVecEnv
from evaluation.agent_info import agent_info, policy_with_reset
from evaluation.loading import agent_problems, task_numbers
from evaluation.play import Chooser, Player, action_seed, sampler
from evaluation.progress import Report, no_report
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import Episode, GameScore, Results
from evaluation.scoring.time_left import EvaluationProgress
from policies import Policy


def evaluate(
    agent: Agent,
    protocol: Protocol,
    report: Report = no_report,
    *,
    num_threads: int = 4,
    tasks: Sequence[int] | None = None,
) -> Results:
    """Play the games of `protocol` side by side, on one split after the other, in environments of their own.

    The same protocol gives the same scores again. What is drawn for a game on a split does not depend on the
    other games and splits. The agent is left as it was.

    Args:
        agent: trained with any number of environments, or loaded without one.
        protocol: what to play and how.
        report: called after each step with numbers of episodes.
        num_threads: native threads that step each game; does not change the scores.
        tasks: what to tell a policy that is told its task, for each game; None for what it was trained with.

    Raises:
        UserError: the protocol cannot be played, or the agent is for other observations or actions.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent)])
    policy = policy_with_reset(agent, protocol.reset)
    numbers = task_numbers(agent, protocol.games, protocol.mode) if tasks is None else tasks
    progress = EvaluationProgress(protocol, report)
    scores: list[GameScore] = []
    for levels in protocol.levels:
        episodes: list[list[Episode]] = [[] for _ in protocol.games]
        for quotas, level_seeds in _waves(protocol, levels):
            played = _play_wave(policy, protocol, levels, quotas, level_seeds, num_threads, progress, numbers)
            for so_far, more in zip(episodes, played, strict=True):
                so_far += more
        for game, found in zip(protocol.games, episodes, strict=True):
            if protocol.every_level:
                check_every_level(found, levels)
                found.sort(key=lambda episode: episode.level)
            scores.append(GameScore(game, protocol.mode, levels, tuple(found)))
    return Results(agent_info(agent, protocol.mode), protocol, tuple(scores))


def episode_quotas(episodes: int, num_envs: int) -> list[int]:
    """How many episodes each environment plays: as equal as can be, and known before the first step.

    If environments played on until enough episodes have ended anywhere, short episodes would be counted too often.
    The quotas are those of `stable_baselines3.common.evaluation.evaluate_policy`.
    """
    return [(episodes + env) // num_envs for env in range(num_envs)]


Parts = Sequence[NDArray[np.int64]]


def play_episodes(
    policy: Policy,
    envs: Sequence[VecEnv],
    quotas: Sequence[Sequence[int]],
    choosers: Sequence[Chooser],
    on_episode: Callable[[int, Episode], None] = lambda number, episode: None,
    on_step: Callable[[Parts, Parts], None] = lambda left, ages: None,
    tasks: Sequence[int] | None = None,
) -> list[list[Episode]]:
    """Play until each environment has its episodes.

    Args:
        policy: plays.
        envs: vectorised environments whose infos describe episodes as `envs.ProcgenVecEnv` does.
        quotas: how many episodes each of their environments plays.
        choosers: as for `Player`.
        on_episode: is called after each episode that counts, with the number of its vectorised environment.
        on_step: is called after each step: episodes that each environment has left, and steps of the present one.
        tasks: of each of `envs`, as for `Player`.

    Returns:
        The episodes of each of `envs`, in the order in which they ended (within a step: by environment).
    """
    for env, shares in zip(envs, quotas, strict=True):
        if len(shares) != env.num_envs:
            raise ValueError(f"{len(shares)} quotas for {env.num_envs} environments: give one for each")
    owners = np.repeat(np.arange(len(envs)), [env.num_envs for env in envs])
    told = None if tasks is None else [tasks[owner] for owner in owners]
    player = Player(policy, envs, choosers, told)
    left, ages = np.concatenate(quotas), np.zeros(player.num_envs, dtype=np.int64)
    episodes: list[list[Episode]] = [[] for _ in envs]
    player.active = left > 0
    for step in player.play():
        for index in np.flatnonzero(step.ended):
            episode = Episode.from_info(step.infos[index])
            episodes[owners[index]].append(episode)
            on_episode(int(owners[index]), episode)
        left -= step.ended
        ages = (ages + player.active) * ~step.ended
        player.active = left > 0
        on_step(player.split(left), player.split(ages))
    return episodes


def _waves(protocol: Protocol, levels: Levels) -> Iterator[tuple[Sequence[int], Sequence[int] | None]]:
    """Quotas and level seeds (None: drawn) of the environments of each game; several if levels outnumber them."""
    num_envs = protocol.num_envs_on(levels)
    if not protocol.every_level:
        yield episode_quotas(protocol.episodes, num_envs), None
        return
    for first in range(0, levels.count, num_envs):
        wave = levels.seeds[first : first + num_envs]
        yield [1] * len(wave), wave


def _play_wave(
    policy: Policy,
    protocol: Protocol,
    levels: Levels,
    quotas: Sequence[int],
    level_seeds: Sequence[int] | None,
    num_threads: int,
    progress: EvaluationProgress,
    tasks: Sequence[int],
) -> list[list[Episode]]:
    """The episodes of each game."""
    envs, choosers = [], []
    with ExitStack() as stack:
        for game in protocol.games:
            seed = action_seed(protocol.seed, game, levels)
            choosers.append(greedy if protocol.greedy else sampler(seed, policy.device))
            env = ProcgenVecEnv(
                [game],
                len(quotas),
                protocol.mode,
                levels,
                protocol.seed,
                num_threads=num_threads,
                level_seeds=level_seeds,
                twist=protocol.twist,
            )
            envs.append(env)
            stack.callback(env.close)
        on_step = partial(progress.step, levels.name)
        return play_episodes(policy, envs, [quotas] * len(envs), choosers, progress.count, on_step, tasks)


def check_every_level(episodes: Sequence[Episode], levels: Levels) -> None:
    """Raise RuntimeError unless each of `levels` was played exactly once."""
    met = Counter(episode.level for episode in episodes)
    wrong = sorted(level for level in {*met, *levels.seeds} if met[level] != 1 or level not in levels.seeds)
    if wrong:
        found = ", ".join(f"level {level} {met[level]} times" for level in wrong[:5])
        raise RuntimeError(f"levels {levels} were not each played exactly once: {found}")
