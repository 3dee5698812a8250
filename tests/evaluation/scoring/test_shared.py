from __future__ import annotations

from agents import IMPALA
from agents.distributed import joined
from benchmarks.team import together
from evaluation import Protocol, evaluate, evaluate_together
from evaluation.scoring.shared import shares

GAMES = ("chaser", "leaper", "fruitbot")


def test_shares_are_the_whole_protocol_once() -> None:
    for splits in (("train",), ("train", "test1", "test2")):
        protocol = Protocol(GAMES, splits=splits)
        whole = sorted((game, split) for game in GAMES for split in splits)
        for processes in range(1, 8):
            dealt = shares(protocol, processes)
            assert len(dealt) == processes
            pairs = [(game, *part.splits) for parts in dealt for part in parts for game in part.games]
            assert sorted(pairs) == whole
            counts = [sum(len(part.games) for part in parts) for parts in dealt]
            assert max(counts) - min(counts) <= 1 + (processes == 3)


def test_no_process_plays_the_same_games_on_every_split() -> None:
    first, _ = shares(Protocol(("maze", "heist"), splits=("train", "test1")), 2)
    assert [part.games for part in first] == [("maze",), ("heist",)]


def test_two_processes_find_what_one_finds(agent: IMPALA) -> None:
    """Episodes of drawn levels and actions, and each level once."""
    for protocol in (
        Protocol(GAMES, splits=("train", "test2"), episodes=5, greedy=False, num_envs=3),
        Protocol(GAMES, splits=("0:4",), every_level=True, num_envs=3),
    ):
        alone = evaluate(agent, protocol, num_threads=0)

        def share(rank: int, protocol: Protocol = protocol) -> object:
            with joined() as exchange:
                return evaluate_together(agent, protocol, exchange)

        for results in together(2, share):
            assert results.scores == alone.scores
            assert results.protocol == protocol
