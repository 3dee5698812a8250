"""A session plays what it says, and does what viewers ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import Actor
from common.errors import UserError
from envs import ProcgenVecEnv
from envs.games import EXPLORATION_LEVELS
from evaluation.watch.controls import (
    ChooseActions,
    ChooseCheckpoint,
    ChooseGames,
    ChooseLevels,
    GoBack,
    Intervene,
    Keep,
    Keys,
    Look,
    Play,
    PlayMyself,
    Restart,
    Seen,
    Speed,
    Step,
)
from evaluation.watch.history import Tick
from evaluation.watch.session import Session
from evaluation.watch.side import WatchedAgent, action_of

Make = Callable[..., WatchedAgent]
MakeSession = Callable[..., Session]


def play(session: Session, steps: int) -> list[Tick]:
    return [session.advance() for _ in range(steps)]


def numbers(ticks: list[Tick], key: str, side: int = 0, game: int = 0) -> list[Any]:
    return [tick.sides[side][game].numbers[key] for tick in ticks if tick.fresh[side][game]]


def test_numbers_are_those_of_a_replay(session: MakeSession, watch: Make) -> None:
    agent = watch()
    watched = session(agent, split="test1", seed=3)
    ticks = play(watched, 60)
    env = ProcgenVecEnv(
        ["bossfight", "chaser"], 2, level_seeds=[int(numbers(ticks, "level", game=g)[0]) for g in (0, 1)]
    )
    observation: Any = env.reset()
    starts, actor = (
        np.ones(2, dtype=bool),
        Actor(agent.agent.policy, 2, agent.agent.device, torch.Generator()),
    )
    playing = np.ones(2, dtype=bool)  # the replay ends with the first episode of each game
    returns = np.zeros(2)
    for t, tick in enumerate(ticks):
        chosen = actor.step(observation, starts, deterministic=True)
        for game in np.flatnonzero(playing):
            record = tick.sides[0][game]
            shown = record.numbers
            assert np.array_equal(record.rgb, observation["rgb"][game])
            assert (shown["step"], shown["start"], shown["return"]) == (t, t == 0, returns[game])
            assert shown["action"] == chosen.actions[game]
            assert shown["value"] == pytest.approx(float(chosen.values[game]), rel=1e-3, abs=1e-3)
            assert shown["probabilities"] == pytest.approx(
                chosen.logits[game].softmax(-1).tolist(), rel=1e-3, abs=1e-4
            )
            for name, weights in record.weights.items():
                torch.testing.assert_close(weights, actor.state[name][game])
                written = shown["readings"]["norm"][f"{name}_norm"]
                assert written == pytest.approx(float(actor.state[name][game].norm()), rel=1e-3)
        observation, rewards, starts, infos = env.step(chosen.actions.numpy())
        for game in np.flatnonzero(playing):
            shown = tick.sides[0][game].numbers
            assert (shown["reward"], shown["ended"]) == (rewards[game], starts[game])
            if starts[game]:
                assert shown["final"] == infos[game]["episode"]["r"]
        returns += rewards
        playing &= ~starts
    env.close()
    assert not playing.all()
    assert set(ticks[-1].sides[0][0].weights) == {"layer0/shift", "layer1/shift"}


def test_written_is_how_far_the_weights_have_moved(session: MakeSession) -> None:
    ticks = play(session(), 60)
    assert any(numbers(ticks[1:], "start"))
    before = None
    for tick in ticks:
        record = tick.sides[0][0]
        weights = record.weights["layer0/shift"]
        old = torch.zeros_like(weights) if record.numbers["start"] or before is None else before
        assert record.numbers["readings"]["written"]["layer0/shift_written"] == pytest.approx(
            float((weights - old).norm()), rel=1e-3
        )
        before = weights


@pytest.mark.parametrize("core", ["srwm", "deltanet"])
def test_rates_of_each_head_are_those_that_the_bars_are_means_of(
    core: str, session: MakeSession, watch: Make
) -> None:
    for tick in play(session(watch(core)), 5):
        for record in tick.sides[0]:
            rates, heads = record.numbers["readings"]["rate"], record.numbers["heads"]
            assert rates
            for name, rate in rates.items():
                assert len(heads[name]) == 2
                assert rate == pytest.approx(np.mean(heads[name]), rel=1e-4)
            assert any(len(set(heads[name])) == 2 for name in rates)


def test_sides_play_the_same_levels_in_step(session: MakeSession, watch: Make) -> None:
    """Whoever ends first waits, and nothing happens to it meanwhile."""
    watched = session(watch(), watch(seed=5))
    ticks = play(watched, 200)
    waited = 0
    for game in (0, 1):
        order: list[list[int]] = [[], []]
        for before, tick in zip([ticks[0], *ticks], ticks, strict=False):
            for side in (0, 1):
                record = tick.sides[side][game]
                if tick.fresh[side][game]:
                    if record.numbers["start"]:
                        order[side].append(record.numbers["level"])
                else:
                    waited += 1
                    assert record is before.sides[side][game]
                    assert record.numbers["ended"]
            shown = [tick.sides[side][game].numbers for side in (0, 1)]
            assert shown[0]["level"] == shown[1]["level"]
            if all(tick.fresh[side][game] for side in (0, 1)):
                assert shown[0]["step"] == shown[1]["step"]
        assert order[0] == order[1]
        assert len(set(order[0])) > 1
    assert waited


def test_waiting_leaves_the_memory_alone(session: MakeSession, watch: Make) -> None:
    """One that never forgets begins its next episode with the weights of its last step, however long it waited."""
    watched = session(watch(reset="never"), watch(seed=5))
    ticks = play(watched, 200)
    checked = 0
    for game in (0, 1):
        last = None
        for tick in ticks:
            if not tick.fresh[0][game]:
                continue
            record = tick.sides[0][game]
            if record.numbers["start"] and last is not None and tick.number > last[0] + 1:
                assert record.numbers["readings"]["written"]["layer0/shift_written"] == pytest.approx(
                    float((record.weights["layer0/shift"] - last[1].weights["layer0/shift"]).norm()), rel=1e-3
                )
                checked += 1
            last = tick.number, record
    assert checked


def test_equal_sides_play_equally(session: MakeSession, watch: Make) -> None:
    sampled = [watch(greedy=False), watch(greedy=False)]
    ticks = play(session(*sampled), 60)
    for key in ("action", "value", "level", "return"):
        assert numbers(ticks, key, 0) == numbers(ticks, key, 1)


@pytest.mark.parametrize("core", ["srwm", "deltanet"])
def test_freezing_changes_outputs_from_then_on_and_only_then(
    core: str, session: MakeSession, watch: Make
) -> None:
    watched = session(watch(core, seed=4), watch(core, seed=4), games=("starpilot",))
    before = play(watched, 12)
    watched.apply(Intervene("frozen", side=1))
    after = play(watched, 12)
    assert numbers(before, "value", side=0) == numbers(before, "value", side=1)
    values = [numbers(after, "value", side=side) for side in (0, 1)]
    # SRWM's output is read before it writes, so the first write that is missing shows one step later.
    same = 1 if core == "srwm" else 0
    assert values[0][:same] == values[1][:same]
    assert values[0][same] != values[1][same]
    frozen_weights = before[-1].sides[1][0].weights
    for tick in after:
        on, frozen = (tick.sides[side][0] for side in (0, 1))
        for name, weights in frozen.weights.items():
            assert torch.equal(weights, frozen_weights[name])
            assert not torch.equal(on.weights[name], frozen_weights[name])
            assert frozen.numbers["readings"]["written"][f"{name}_written"] == 0
    watched.apply(Intervene("on", side=1))
    again = watched.advance().sides[1][0]
    assert all(not torch.equal(weights, frozen_weights[name]) for name, weights in again.weights.items())
    assert again.numbers["readings"]["rate"]["layer0/rate_y" if core == "srwm" else "layer0/rate"] > 0


def test_frozen_weights_stay_through_episodes_and_restarts(session: MakeSession) -> None:
    watched = session()
    play(watched, 20)
    watched.apply(Intervene("frozen"))
    frozen_weights = watched.advance().sides[0][0].weights["layer0/shift"]
    ticks = play(watched, 120)
    watched.apply(Restart())
    ticks += play(watched, 3)
    assert sum(numbers(ticks, "start")) >= 2
    assert frozen_weights.any()
    assert all(torch.equal(tick.sides[0][0].weights["layer0/shift"], frozen_weights) for tick in ticks)


def test_reset_every_n_steps(session: MakeSession, watch: Make) -> None:
    watched = session(watch(), watch(), games=("starpilot",))
    play(watched, 7)
    watched.apply(Intervene("reset", 5, side=0))
    ticks = play(watched, 12)
    for side, cleared in ((0, {0, 5, 10}), (1, set())):
        for t, tick in enumerate(ticks):
            record = tick.sides[side][0]
            norm, written = (
                record.numbers["readings"][kind][f"layer0/shift_{kind}"] for kind in ("norm", "written")
            )
            assert (norm == written) == (t in cleared)


def test_what_a_policy_cannot_do_has_a_reason(session: MakeSession, watch: Make) -> None:
    watched = session(watch(), watch("lstm"))
    sides = watched.describe()["sides"]
    assert sides[0]["unsupported"] == {"on": None, "frozen": None, "reset": None}
    assert sides[1]["unsupported"]["frozen"] == "lstm does not modify its weights"
    assert sides[1]["unsupported"]["reset"] is None
    with pytest.raises(UserError, match="lstm does not modify its weights"):
        watched.apply(Intervene("frozen", side=1))
    watched.apply(Intervene("frozen"))  # asked of both, it is done where it can be
    assert [side["intervention"]["kind"] for side in watched.describe()["sides"]] == ["frozen", "on"]
    alone = session(watch("feedforward"))
    with pytest.raises(UserError, match="feedforward remembers nothing"):
        alone.apply(Intervene("reset", 5))
    assert alone.describe()["sides"][0]["weights"] == []
    with pytest.raises(UserError, match="does not modify"):
        session(watch("lstm", intervention=watched.sides[0].watched.intervention))


def test_actions_are_greedy_or_drawn(session: MakeSession) -> None:
    watched = session()
    likely = [
        int(np.argmax(tick.sides[0][0].numbers["probabilities"])) == tick.sides[0][0].numbers["action"]
        for tick in play(watched, 40)
    ]
    assert all(likely)
    watched.apply(ChooseActions(False))
    assert watched.describe()["sides"][0]["greedy"] is False
    drawn = [tick.sides[0][0].numbers for tick in play(watched, 40)]
    assert any(np.argmax(shown["probabilities"]) != shown["action"] for shown in drawn)


def test_restart_and_levels(session: MakeSession) -> None:
    watched = session(split="5:9", seed=2)
    first = play(watched, 5)
    assert watched.apply(Restart())
    again = play(watched, 5)
    for key in ("level", "value", "action", "step", "return"):
        assert numbers(first, key) == numbers(again, key)
    watched.apply(ChooseLevels("test2", 77))
    ticks = play(watched, 100)
    assert set(numbers(ticks, "level")) == {77}
    assert sum(numbers(ticks, "start")) > 1
    assert ticks[0].sides[0][0].numbers["step"] == 0
    watched.apply(ChooseLevels("1100:1110"))
    levels = set(numbers(play(watched, 200), "level"))
    assert len(levels) > 1
    assert levels <= set(range(1100, 1110))
    before = watched.history.last
    assert before is not None
    watched.apply(Restart(next_levels=True))
    assert [m.numbers["step"] for m in watched.advance().sides[0]] == [0, 0]


def test_training_levels_are_told_from_unseen_ones(session: MakeSession) -> None:
    """The agent was trained on bossfight's levels 0 to 11."""
    watched = session(split="10:14")
    kinds = {
        (game, tick.sides[0][game].numbers["level"]): tick.sides[0][game].numbers["kind"]
        for tick in play(watched, 250)
        for game in (0, 1)
    }
    assert {kind for (game, level), kind in kinds.items() if game == 0 and level < 12} == {"training"}
    assert {kind for (game, level), kind in kinds.items() if game == 1 or level >= 12} == {"unseen"}


def test_other_games(session: MakeSession) -> None:
    watched = session()
    play(watched, 3)
    watched.apply(ChooseGames(("bigfish",)))
    tick = watched.advance()
    assert (len(tick.sides[0]), tick.number) == (1, 4)
    assert watched.describe()["games"] == ["bigfish"]
    assert watched.history.first == 4
    for bad in (("mzae",), (), ("bigfish", "bigfish")):
        with pytest.raises(UserError):
            watched.apply(ChooseGames(bad))
    assert watched.describe()["games"] == ["bigfish"]
    watched.advance()


def test_exploration_mode_plays_its_own_levels(session: MakeSession) -> None:
    watched = session(games=("leaper", "maze"), mode="exploration")
    ticks = play(watched, 5)
    watched.apply(Restart(next_levels=True))
    ticks += play(watched, 5)
    for game, name in enumerate(("leaper", "maze")):
        assert set(numbers(ticks, "level", game=game)) == {EXPLORATION_LEVELS[name]}
    with pytest.raises(UserError, match="one level per game"):
        watched.apply(ChooseLevels("test1", 3))


def test_looking_back(session: MakeSession) -> None:
    watched = session()
    ticks = play(watched, 10)
    watched.apply(Look(4))
    assert (watched.playing, watched.looking) == (False, 4)
    assert watched.history.get(4) is ticks[3]
    for bad in (0, 11, -1):
        with pytest.raises(UserError, match="not remembered"):
            watched.apply(Look(bad))
    assert watched.looking == 4
    watched.apply(Look(None))
    assert watched.looking is None
    watched.apply(Look(5))
    watched.apply(Play(True))
    assert (watched.playing, watched.looking) == (True, None)
    assert watched.apply(Step())
    assert (watched.playing, watched.tick) == (False, 10)


def test_memory_for_the_past_is_bounded(session: MakeSession) -> None:
    small = session(history=1_000_000)
    play(small, 60)
    history = small.history
    assert history.bytes <= 1_000_000
    assert history.first is not None
    assert 1 < history.first < 60
    assert small.advance().number == 61


def shown(ticks: list[Tick]) -> list[Any]:
    """Everything that ticks show but for the mark of having gone back."""
    return [
        [[{**game.numbers, "cut": False} for game in side] for side in tick.sides] + [tick.fresh]
        for tick in ticks
    ]


@pytest.mark.parametrize("core", ["srwm", "lstm"])
def test_going_back_plays_the_same_again(core: str, session: MakeSession, watch: Make) -> None:
    """Through starts of episodes, waits for the other side, drawn actions and drawn levels."""
    watched = session(watch(core, greedy=False), watch(seed=5), history=2**29)
    play(watched, 30)
    ticks = play(watched, 90)
    assert any(not all(map(all, tick.fresh)) for tick in ticks)
    for start in (0, 1, 37, 62):
        watched.apply(GoBack(ticks[start].number))
        assert watched.looking is None
        again = play(watched, 20)
        assert shown(again) == shown(ticks[start : start + 20])
        assert [record.numbers["cut"] for record in again[0].sides[0]] == [
            fresh or record.numbers["cut"]
            for fresh, record in zip(again[0].fresh[0], again[0].sides[0], strict=True)
        ]
        assert not any(record.numbers["cut"] for record in again[-1].sides[0] if again[-1].fresh[0][0])
        assert again[0].number > ticks[-1].number  # what came after it is not forgotten
    with pytest.raises(UserError, match="not remembered"):
        watched.apply(GoBack(10_000))


def test_what_would_have_been(session: MakeSession) -> None:
    """From the same moment on with frozen weights, the same step is seen and another one follows."""
    watched = session(games=("starpilot",))
    ticks = play(watched, 30)
    watched.apply(Intervene("frozen"))
    watched.apply(GoBack(ticks[20].number))
    frozen = play(watched, 5)
    values = [tick.sides[0][0].numbers["value"] for tick in (ticks[20], ticks[21], frozen[0], frozen[1])]
    assert values[0] == values[2]
    assert values[1] != values[3]
    assert torch.equal(
        frozen[-1].sides[0][0].weights["layer0/shift"], ticks[19].sides[0][0].weights["layer0/shift"]
    )


def test_what_is_kept_is_not_forgotten(session: MakeSession) -> None:
    watched = session(history=1_000_000)
    play(watched, 3)
    watched.apply(Keep(2))
    later = play(watched, 80)
    assert watched.history.get(2) is None
    watched.apply(Look(2))
    assert watched.remembered(watched.looking).number == 2  # type: ignore[union-attr]
    watched.apply(GoBack(2))
    assert watched.advance().sides[0][0].numbers["step"] == 1
    with pytest.raises(UserError, match="not remembered"):
        watched.apply(Keep(3))
    assert later


def test_a_person_plays_beside_the_agent(session: MakeSession, watch: Make) -> None:
    watched = session(watch(), games=("bossfight", "starpilot"))
    watched.apply(PlayMyself(1))
    first = watched.advance()
    assert [record.numbers["action"] for record in first.sides[1]][1] == 4  # no key is held
    watched.apply(Keys(("LEFT", "UP")))
    held = [watched.advance() for _ in range(3)]
    assert numbers(held, "action", side=1, game=1) == [2, 2, 2]
    watched.apply(Keys(("D",)))
    watched.apply(Keys(()))  # a key that was only touched counts for one step
    after = [watched.advance() for _ in range(3)]
    assert numbers(after, "action", side=1, game=1) == [9, 4, 4]
    # The other game, and the agent's side, go on as they would; the same levels are played.
    ticks = [first, *held, *after]
    for key in ("action", "value", "level"):
        assert numbers(ticks, key, side=1, game=0) == numbers(ticks, key, side=0, game=0)
    alone = session(watch(), games=("bossfight", "starpilot"))
    assert numbers(ticks, "action", game=1) == numbers(play(alone, len(ticks)), "action", game=1)
    assert watched.describe()["sides"][1]["by_hand"] == 1
    watched.apply(PlayMyself(None))
    assert len(watched.sides) == 1
    for bad in (2, -1):
        with pytest.raises(UserError, match="no game"):
            watched.apply(PlayMyself(bad))


def test_a_person_takes_the_second_agents_place(session: MakeSession, watch: Make) -> None:
    watched = session(watch(), watch("lstm"))
    watched.apply(PlayMyself(0))
    assert [side["core"] for side in watched.describe()["sides"]] == ["srwm", "srwm"]
    watched.apply(PlayMyself(1))
    watched.apply(PlayMyself(None))
    assert [side["core"] for side in watched.describe()["sides"]] == ["srwm", "lstm"]
    watched.apply(PlayMyself(0))
    watched.apply(ChooseGames(("maze",)))
    state = watched.describe()
    assert [side["core"] for side in state["sides"]] == ["srwm", "lstm"]
    assert state["by_hand"] is None


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ((), 4),
        (("RIGHT",), 7),
        (("DOWN", "RIGHT"), 6),
        (("RIGHT", "LEFT"), 1),
        (("RIGHT", "D"), 9),
        (("x",), 4),
    ],
)
def test_keys_are_actions(keys: tuple[str, ...], action: int) -> None:
    assert action_of(keys) == action


def test_another_checkpoint_of_the_run(session: MakeSession, watch: Make, tmp_path: Path) -> None:
    files = {}
    for steps, seed in ((100, 1), (200, 2)):
        agent = watch(seed=seed).agent
        files[steps] = tmp_path / "checkpoints" / f"step_{steps:012d}.ckpt"
        agent.save(files[steps])
    watched = session(watch(seed=1, checkpoints=files), games=("starpilot",))
    first = play(watched, 10)
    watched.apply(ChooseCheckpoint(200))
    other = play(watched, 10)
    assert numbers(other, "level") == numbers(first, "level")
    assert numbers(other, "step") == numbers(first, "step")
    assert numbers(other, "value") != numbers(first, "value")
    assert numbers(other, "value") == numbers(play(session(watch(seed=2), games=("starpilot",)), 10), "value")
    assert watched.describe()["sides"][0]["name"] == str(files[200])
    watched.apply(ChooseCheckpoint(100))
    assert numbers(play(watched, 10), "value") == numbers(first, "value")
    with pytest.raises(UserError, match="no checkpoint of 300 steps: there are 100, 200"):
        watched.apply(ChooseCheckpoint(300))
    files[200].write_bytes(b"")
    with pytest.raises(UserError):
        watched.apply(ChooseCheckpoint(200))
    watched.advance()


def test_bad_settings_name_everything(session: MakeSession) -> None:
    with pytest.raises(UserError, match=r"mzae.*tset1.*level -1"):
        session(games=("mzae",), split="tset1", level=-1)
    watched = session()
    with pytest.raises(UserError, match="no side 2"):
        watched.apply(ChooseActions(True, side=2))
    with pytest.raises(UserError, match="one viewer"):
        watched.apply(Seen())
    watched.apply(Speed(None))
    assert watched.describe()["speed"] is None
