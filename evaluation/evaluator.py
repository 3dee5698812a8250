"""Score an agent by a protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from agents import Actor, Agent
from agents.acting import greedy
from common.errors import raise_problems
from envs import GAMES, Levels, ProcgenVecEnv
from evaluation.protocol import Protocol
from evaluation.results import GameScore, Results
from evaluation.rollouts import Episode, Match, episode_quotas, play_matches, sampler
from evaluation.subject import agent_problems, policy_with_reset, subject_of
from policies import Policy

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what is being done."""


def no_progress(done: int, total: int, what: str) -> None:
    """A `Progress` that shows nothing."""


def evaluate(
    agent: Agent, protocol: Protocol, progress: Progress = no_progress, *, num_threads: int = 4
) -> Results:
    """Play the games of `protocol` side by side, on one split after the other, in environments of their own.

    The same protocol gives the same scores again. What is drawn for a game on a split does not depend on the
    other games and splits. The agent is left as it was.

    Args:
        agent: trained with any number of slots, or loaded without an environment.
        protocol: what to play and how.
        progress: called after each episode with numbers of episodes.
        num_threads: native threads that step each game; does not change the scores.

    Raises:
        UserError: the protocol cannot be played, or the agent is for other observations or actions.
    """
    raise_problems([*protocol.problems(), *agent_problems(agent)])
    policy = policy_with_reset(agent, protocol.reset)
    total, done = protocol.total_episodes, 0

    def on_episode(what: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, what)

    scores: list[GameScore] = []
    for levels in protocol.levels:
        split = _Split(agent, policy, protocol, levels, num_threads, partial(on_episode, str(levels)))
        episodes = split.every_level() if protocol.every_level else split.drawn_levels()
        scores += [GameScore(game, protocol.mode, levels, tuple(episodes[game])) for game in protocol.games]
    return Results(subject_of(agent, protocol.mode), protocol, tuple(scores))


@dataclass(frozen=True)
class _Split:
    """All games on one split."""

    agent: Agent
    policy: Policy
    protocol: Protocol
    levels: Levels
    num_threads: int
    on_episode: Callable[[], None]

    def drawn_levels(self) -> dict[str, list[Episode]]:
        """Episodes of each game, with levels drawn with replacement."""
        return self._play(episode_quotas(self.protocol.episodes, self.protocol.slots_on(self.levels)), None)

    def every_level(self) -> dict[str, list[Episode]]:
        """One episode of each game on each level, in order; in waves if there are more levels than slots."""
        episodes: dict[str, list[Episode]] = {game: [] for game in self.protocol.games}
        slots = self.protocol.slots_on(self.levels)
        for first in range(0, self.levels.count, slots):
            wave = self.levels.seeds[first : first + slots]
            for game, played in self._play([1] * len(wave), wave).items():
                episodes[game] += sorted(played, key=lambda episode: episode.level)
        for played in episodes.values():
            check_every_level(played, self.levels)
        return episodes

    def _play(self, quotas: Sequence[int], level_seeds: Sequence[int] | None) -> dict[str, list[Episode]]:
        protocol, device = self.protocol, self.agent.device
        with ExitStack() as stack:
            matches = {}
            for game in protocol.games:
                env = ProcgenVecEnv(
                    [game],
                    len(quotas),
                    protocol.mode,
                    self.levels,
                    protocol.seed,
                    num_threads=self.num_threads,
                    level_seeds=level_seeds,
                )
                stack.callback(env.close)
                seed = action_seed(protocol.seed, game, self.levels)
                choose = greedy if protocol.greedy else sampler(seed, device)
                matches[game] = Match(env, quotas, choose, self.on_episode)
            actor = Actor(self.policy, len(matches) * len(quotas), device, torch.Generator(device))
            play_matches(list(matches.values()), actor)
        return {game: match.episodes for game, match in matches.items()}


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
