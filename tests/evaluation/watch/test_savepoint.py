"""A moment of a session as a file: another session goes on from it, bit by bit."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import read_checkpoint, write_checkpoint
from common.cli import parse_options
from common.errors import UserError
from evaluation.watch.command_line import Options, prepare
from evaluation.watch.controls import Intervene, PlayMyself
from evaluation.watch.history import Tick
from evaluation.watch.savepoint import read_savepoint, savepoint
from evaluation.watch.session import Session
from evaluation.watch.side import WatchedAgent

Make = Callable[..., WatchedAgent]
MakeSession = Callable[..., Session]


def shown(ticks: list[Tick]) -> list[Any]:
    """What viewers see, but for whether one went back in between."""
    return [[[{**record.numbers, "cut": False} for record in side] for side in tick.sides] for tick in ticks]


@pytest.mark.parametrize("core", ["srwm", "lstm"])
def test_another_session_goes_on_as_this_one_did(
    core: str, session: MakeSession, watch: Make, tmp_path: Path
) -> None:
    """Through starts of episodes, waits for the other side, drawn actions and drawn levels."""
    agents = watch(core, greedy=False), watch(seed=5)
    one = session(*agents, seed=3)
    one.apply(Intervene("reset", 7, 1))
    ticks = [one.advance() for _ in range(60)]
    waiting = next(tick for tick in ticks[5:] if not all(map(all, tick.fresh)))
    for start in (0, ticks.index(waiting)):
        file = tmp_path / "a.moment"
        file.write_bytes(savepoint(one, ticks[start].number))
        other = read_savepoint(file).begin([watch(core), watch(seed=5)], 2**28)
        try:
            assert other.sides[0].watched.greedy is False
            assert str(other.sides[1].watched.intervention) == "7"
            again = [other.advance() for _ in range(20)]
            assert shown(again) == shown(ticks[start : start + 20])
            first, second = again[-1].sides[0][0], ticks[start + 19].sides[0][0]
            assert np.array_equal(first.native, second.native)
        finally:
            other.close()


def test_what_cannot_be_saved(session: MakeSession) -> None:
    one = session()
    one.advance()
    with pytest.raises(UserError, match="step 9 is not remembered"):
        savepoint(one, 9)
    one.apply(PlayMyself(0))
    one.advance()
    with pytest.raises(UserError, match="a person plays"):
        savepoint(one, None)


def changed(content: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> io.BytesIO:
    change(content)
    file = io.BytesIO()
    write_checkpoint(file, content)
    file.seek(0)
    return file


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no moment": lambda c: c.update(format="x"),
    "version 9": lambda c: c.update(version=9),
    "unknown game": lambda c: c["config"].update(games=["x"]),
    "level": lambda c: c["config"].update(level=-1),
    "not a list of 1 to 16": lambda c: c.update(episodes=[]),
    "not a number from 1": lambda c: c.update(episodes=[10**30, 1]),
    "self-modification": lambda c: c["sides"][0]["intervention"].update(kind="x"),
    "other weights": lambda c: c["sides"][0].update(weights="0"),
    "not of 1": lambda c: c["sides"].append(c["sides"][0]),
    "has no 'layer0/shift'": lambda c: c["sides"][0]["player"]["state"].pop("layer0/shift"),
    "another shape or type": lambda c: c["sides"][0]["player"]["state"].update(
        {"layer0/shift": np.zeros(3, np.float32)}
    ),
    "not those of 2 games": lambda c: c["sides"][0]["player"].update(active=np.ones(3, bool)),
    "not one of 2 games": lambda c: c["sides"][0]["tallies"].pop(),
    "environment state": lambda c: c["sides"][0]["player"]["env"].pop("native"),
    "checksum": lambda c: c["sides"][0]["player"]["env"].update(native_checksum=1),
    "does not fit": lambda c: c["sides"][0]["player"].update(draws=np.zeros(3, np.uint8)),
    "the moment does not fit": lambda c: c["sides"][0]["player"]["env"].update(episode_returns=np.zeros(7)),
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_does_not_fit_is_refused_in_a_line(said: str, session: MakeSession, watch: Make) -> None:
    one = session()
    one.advance()
    content = read_checkpoint(io.BytesIO(savepoint(one, 1)))
    with pytest.raises(UserError, match=said) as refusal:
        read_savepoint(changed(content, CHANGES[said])).begin([watch()], 2**20)
    assert "\n" not in str(refusal.value)


def test_the_command_line_begins_at_the_moment(session: MakeSession, watch: Make, tmp_path: Path) -> None:
    agent = watch()
    agent.agent.experiment = {"games": ["bossfight"], "mode": "easy", "levels": "train"}
    checkpoint = agent.agent.save(tmp_path / "it.ckpt") or tmp_path / "it.ckpt"
    one = session(agent, split="5:9")
    ticks = [one.advance() for _ in range(12)]
    file = tmp_path / "session.moment"
    file.write_bytes(savepoint(one, 10))

    def ask(words: str) -> Session:
        return prepare(parse_options(Options, f"{checkpoint} {words}".split(), "watch", "checkpoint"))

    other = ask(f"--moment {file}")
    try:
        assert not other.playing
        assert other.config.split == "5:9"
        (record, _), (before, _) = other.history.last.sides[0], ticks[9].sides[0]  # type: ignore[union-attr]
        assert [record.numbers[key] for key in ("step", "value", "action")] == [
            before.numbers[key] for key in ("step", "value", "action")
        ]
    finally:
        other.close()
    with pytest.raises(UserError, match=r"--games is what --moment says itself.*nowhere"):
        ask("--games maze --moment nowhere")
