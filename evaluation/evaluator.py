"""Score an agent by a protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from agents import Actor, Agent
from envs import GAMES, Levels, ProcgenVecEnv
from envs.checks import raise_problems
from evaluation.protocol import Protocol
from evaluation.results import GameScore, Results
from evaluation.rollouts import Episode, episode_quotas, play_episodes
from evaluation.subject import agent_problems, policy_with_reset, subject_of
from policies import Policy

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what is being done."""


def no_progress(done: int, total: int, what: str) -> None:
    """A `Progress` that shows nothing."""


def evaluate(
    agent: Agent, protocol: Protocol, progress: Progress = no_progress, *, num_threads: int = 4
) -> Results:
    """Play all games and splits of `protocol`, one after the other, in environments of their own.

    The score of a game on a split depends on no other game or split, and the same protocol gives the same
    scores again. The agent is left as it was.

    Args:
        agent: trained with any number of slots, or loaded without an environment.
        protocol: what to play and how.
        progress: called after each episode with numbers of episodes.
        num_threads: native threads that step the games; does not change the scores.

    Raises:
        UserError: the protocol cannot be played, or the agent is for other observations or actions.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent)])
    policy = policy_with_reset(agent, protocol.reset)
    total, done = protocol.total_episodes, 0
    scores: list[GameScore] = []
    for levels in protocol.levels:
        for game in protocol.games:

            def on_episode(what: str = f"{game} {levels}") -> None:
                nonlocal done
                done += 1
                progress(done, total, what)

            episodes = _play(agent, policy, protocol, game, levels, num_threads, on_episode)
            scores.append(GameScore(game, protocol.mode, levels, tuple(episodes)))
    return Results(subject_of(agent, protocol.mode), protocol, tuple(scores))


def _play(
    agent: Agent,
    policy: Policy,
    protocol: Protocol,
    game: str,
    levels: Levels,
    num_threads: int,
    on_episode: Callable[[], None],
) -> list[Episode]:
    """The episodes of one game on one split."""
    slots = protocol.slots_on(levels)
    generator = torch.Generator(agent.device).manual_seed(action_seed(protocol.seed, game, levels))

    def play(quotas: Sequence[int], level_seeds: Sequence[int] | None) -> list[Episode]:
        env = ProcgenVecEnv(
            [game], len(quotas), protocol.mode, levels, protocol.seed, None, num_threads, level_seeds
        )
        try:
            actor = Actor(policy, env.num_envs, agent.device, generator)
            return play_episodes(env, actor, quotas, protocol.greedy, on_episode)
        finally:
            env.close()

    if not protocol.every_level:
        return play(episode_quotas(protocol.episodes, slots).tolist(), None)
    episodes: list[Episode] = []
    for first in range(0, levels.count, slots):
        wave = levels.seeds[first : first + slots]
        episodes += play([1] * len(wave), wave)
    check_every_level(episodes, levels)
    return sorted(episodes, key=lambda episode: episode.level)


def action_seed(seed: int, game: str, levels: Levels) -> int:
    """Seed of the actions drawn in one game on one split: independent of what else is evaluated."""
    entropy = [seed, list(GAMES).index(game), levels.start, levels.count]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def check_every_level(episodes: Sequence[Episode], levels: Levels) -> None:
    """Raise RuntimeError unless each of `levels` was played exactly once."""
    met = Counter(episode.level for episode in episodes)
    wrong = sorted(level for level in {*met, *levels.seeds} if met[level] != 1 or level not in levels.seeds)
    if wrong:
        found = ", ".join(f"level {level} {met[level]} times" for level in wrong[:5])
        raise RuntimeError(f"levels {levels} were not each played exactly once: {found}")
