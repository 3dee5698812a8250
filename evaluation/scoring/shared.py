"""An evaluation that several processes share: each plays some of the games on some of the splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

from agents import Agent
from agents.exchange import Exchange
from common.errors import raise_problems
from evaluation.agent_info import agent_info
from evaluation.progress import Progress, Report, no_report
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import Protocol
from evaluation.scoring.results import Episode, GameScore, Results


def shares(protocol: Protocol, processes: int) -> list[list[Protocol]]:
    """What each process plays, as protocols of some games on one split; together they are `protocol`.

    The games of a split are dealt in turns, on each split beginning with another process, so that none gets the games
    with the longest episodes again and again.
    """
    found: list[list[Protocol]] = [[] for _ in range(processes)]
    dealt = 0
    for split in protocol.splits:
        for process in range(processes):
            games = tuple(
                game for number, game in enumerate(protocol.games, dealt) if number % processes == process
            )
            if games:
                found[process].append(replace(protocol, games=games, splits=(split,)))
        # One more than there are games, where all processes had the same number of them.
        dealt += len(protocol.games) + (len(protocol.games) % processes == 0)
    return found


def evaluate_together(
    agent: Agent,
    protocol: Protocol,
    exchange: Exchange,
    report: Report = no_report,
    beat: Callable[[], None] = lambda: None,
) -> Results:
    """As `evaluate`, with the episodes shared by the processes of `exchange`; all get the results of one process.

    Args:
        report: gets the progress of this process.
        beat: called while others are waited for.
    """
    if exchange.size == 1:
        return evaluate(agent, protocol, report)
    raise_problems(protocol.problems())

    def report_alive(progress: Progress) -> None:
        exchange.sign_of_life()
        report(progress)

    mine = [
        score
        for share in shares(protocol, exchange.size)[exchange.rank]
        for score in evaluate(agent, share, report_alive, num_threads=exchange.place.cores).scores
    ]
    episodes: dict[tuple[str, str], Sequence[Episode]] = {}
    for part in exchange.wait_for_all(
        [[score.game, score.levels.name, list(map(astuple, score.episodes))] for score in mine], beat
    ):
        episodes |= {(game, levels): [Episode(*row) for row in rows] for game, levels, rows in part}
    scores = [
        GameScore(game, protocol.mode, levels, tuple(episodes[game, levels.name]))
        for levels in protocol.levels
        for game in protocol.games
    ]
    return Results(agent_info(agent, protocol.mode), protocol, tuple(scores))
