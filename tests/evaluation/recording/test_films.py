"""Films of whole episodes and of what the policy thinks, and traces of everything that happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents import IMPALA
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation import Progress, Protocol, Recording, read_trace, record
from evaluation.command_line import main
from evaluation.recording.overlay import ACCENT, LAYER_COLOURS, Caption, PolicyPanel, TilePainter, heat_map
from evaluation.recording.replay import Replay, choose_replay, play_candidates
from evaluation.recording.video import VideoWriter, animation_of


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def caption(**changes: Any) -> Caption:
    facts: dict[str, Any] = {
        "game": "maze",
        "place": "test1",
        "episode_return": 0.0,
        "last_return": None,
        "just_ended": False,
        "step": 3,
        "value": 1.5,
        "keys": ("LEFT",),
    }
    return Caption(**{**facts, **changes})


def panel_of(**changes: Any) -> PolicyPanel:
    facts: dict[str, Any] = {
        "values": [0.0, 1.0, 0.5],
        "rewards": [0.0, 0.0, 2.0],
        "starts": [True, False, False],
        "probabilities": [0.1] * 5 + [0.5] + [0.0] * 9,
        "action": 5,
        "action_name": "up",
        "norms": [[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]],
        "rates": [[0.5, 0.25], [0.75, 1.0]],
        "weights": np.array([[1.0, -1.0], [0.0, 0.5]], dtype=np.float32),
        "weights_name": "layer0",
    }
    return PolicyPanel(**{**facts, **changes})


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_films_have_all_their_frames(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    coarse[4] = coarse[3]  # two equal frames in a row are two frames
    pictures = coarse.repeat(20, axis=1).repeat(20, axis=2)
    path = tmp_path / f"film.{suffix}"
    with VideoWriter(path, 160, 120, 15) as film:
        for picture in pictures:
            film.write(picture)
    found = frames_of(path)
    assert len(found) == 7
    centres = [frame[10::20, 10::20].astype(int) for frame in found]
    limit = 20 if suffix == "gif" else 40  # the others keep colours at half the resolution
    assert all(np.abs(centre - small).mean() < limit for centre, small in zip(centres, coarse, strict=True))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_film_becomes_a_small_animation(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 200, 100, 15) as film:
        for level in range(6):
            film.write(np.full((100, 200, 3), 40 * level, dtype=np.uint8))
    data, width, height = animation_of(path, 80)
    (tmp_path / "small.gif").write_bytes(data)
    found = frames_of(tmp_path / "small.gif")
    assert (width, height) == (80, 40)
    assert [frame.shape for frame in found] == [(40, 80, 3)] * 3
    assert [round(float(frame.mean()) / 40) for frame in found] == [0, 2, 4]


def test_plain_shows_the_frame_and_nothing_else() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    painter = TilePainter(320, "plain")
    assert painter.size == (320, 320)
    assert np.array_equal(np.asarray(painter.paint(frame, caption())), frame)


def test_the_full_style_adds_a_panel_to_the_scores() -> None:
    frame = np.zeros((320, 320, 3), dtype=np.uint8)
    scores, full = TilePainter(320), TilePainter(320, "full")
    picture = np.asarray(full.paint(frame, caption(), panel_of()))
    assert np.array_equal(picture[:, :320], np.asarray(scores.paint(frame, caption())))
    assert picture.shape[1] == 320 + full.panel


@pytest.mark.parametrize(
    "change",
    [
        {"values": [0.0, 1.0, 0.9]},
        {"rewards": [0.0, 0.0, -2.0]},
        {"rewards": [0.0, 1.0, 2.0]},
        {"starts": [True, False, True]},
        {"probabilities": [0.1] * 5 + [0.4] + [0.0] * 8 + [0.1]},
        {"action": 3, "action_name": "down"},
        {"norms": [[0.0, 1.0, 2.0], [0.0, 0.5, 1.5]]},
        {"rates": [[0.5, 0.25], [0.75, 0.8]]},
        {"weights": np.array([[1.0, -1.0], [0.0, -0.5]], dtype=np.float32)},
        {"weights_name": "layer1"},
    ],
)
def test_each_fact_of_the_panel_is_shown(change: dict[str, Any]) -> None:
    painter = TilePainter(320, "full")
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    before, after = (
        np.asarray(painter.paint(frame, caption(), facts)) for facts in (panel_of(), panel_of(**change))
    )
    changed = (before != after).any(-1)
    assert changed.any()
    assert not changed[:, :320].any()


def test_bars_are_as_long_as_the_probabilities() -> None:
    painter = TilePainter(320, "full")
    frame = np.zeros((64, 64, 3), dtype=np.uint8)

    def lit(probability: float, colour: tuple[int, int, int]) -> int:
        facts = panel_of(probabilities=[0.0] * 5 + [probability] + [0.0] * 9, rates=[[probability]])
        panel = np.asarray(painter.paint(frame, caption(keys=()), facts))[:, 320:]
        return int((panel == colour).all(-1).sum())

    for colour in (ACCENT, LAYER_COLOURS[0]):
        half, whole = lit(0.5, colour) - lit(0.0, colour), lit(1.0, colour) - lit(0.0, colour)
        assert whole / half == pytest.approx(2, rel=0.1)


def test_heat_maps_have_the_sign_and_order_of_the_matrix() -> None:
    picture = np.asarray(
        heat_map(np.array([[0.0, 1.0, 0.25], [-1.0, -0.25, 2.0]], dtype=np.float32), 1.0)
    ).astype(int)
    red, blue = picture[..., 0], picture[..., 2]
    assert red[0, 1] > red[0, 2] > red[0, 0]
    assert blue[1, 0] > blue[1, 1] > blue[0, 0]
    assert np.array_equal(picture[0, 1], picture[1, 2])


def test_best_worst_and_median() -> None:
    replays = [
        Replay("maze", level, np.zeros(1, dtype=np.int64), score)
        for level, score in enumerate([3, 9, 1, 9, 5])
    ]
    assert [choose_replay(replays, which).level for which in ("best", "worst", "median")] == [1, 2, 4]
    assert choose_replay(replays[:2], "median").level == 0


def test_whole_episodes_are_shown_as_they_were_played(agent: IMPALA, tmp_path: Path) -> None:
    games = ("starpilot", "fruitbot")
    protocol = Protocol(games, splits=("40:60",), seed=3)
    recording = Recording(
        str(tmp_path / "film.mp4"),
        video_overlay="full",
        video_per_game=True,
        video_episodes=("best", "worst"),
        video_candidates=3,
    )
    trace = record(agent, protocol, recording)
    played = {game: play_candidates(agent.policy, game, 3, protocol) for game in games}
    scores = {game: sorted(replay.score for replay in replays) for game, replays in played.items()}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["film-fruitbot.mp4", "film-starpilot.mp4"]
    lengths = []
    for env, (which, game) in enumerate((which, game) for which in (-1, 0) for game in games):
        playing = trace.active[:, env]
        lengths.append(int(playing.sum()))
        assert playing[: lengths[-1]].all()
        assert trace.ended[:, env].tolist() == [t == lengths[-1] - 1 for t in range(len(playing))]
        assert trace.rewards[playing, env].sum() == pytest.approx(scores[game][which])
        assert trace.steps[playing, env].tolist() == list(range(lengths[-1]))
        assert 40 <= trace.levels[0, env] < 60
        assert len(set(trace.levels[:, env])) == 1
        # An episode that is over stays as it was at its last step.
        assert len(set(trace.values[lengths[-1] - 1 :, env])) == 1
    assert len(set(lengths)) > 1
    for game in games:
        assert len(frames_of(tmp_path / f"film-{game}.mp4")) == max(lengths) == len(trace.values)


def test_a_trace_holds_everything(agent: IMPALA, tmp_path: Path) -> None:
    games, path = ["leaper", "chaser"], tmp_path / "play.npz"
    recording = Recording(video_seconds=70 / 15, trace=str(path), trace_frames=True)
    protocol = Protocol(tuple(games), splits=("test1",), seed=5)
    shown = record(agent, protocol, recording, meta={"checkpoint": "it"})
    assert [file.name for file in tmp_path.iterdir()] == ["play.npz"]
    about, arrays = read_trace(path)
    assert about["games"] == games
    assert (about["format"], about["version"], about["checkpoint"]) == ("procgen-srwm trace", 2, "it")
    with np.load(path, allow_pickle=False) as file:  # as anybody would read it
        assert json.loads(str(file["meta"])) == about
    env = ProcgenVecEnv(games, 2, levels="test1", seed=5)
    observation: Any = env.reset()
    starts, actor = np.ones(2, dtype=bool), agent.actor(2)
    for t in range(70):
        assert np.array_equal(arrays["frames"][t], observation["rgb"])
        assert arrays["levels"][t].tolist() == env.current_levels
        assert arrays["starts"][t].tolist() == starts.tolist()
        chosen = actor.step(observation, starts, deterministic=True)
        np.testing.assert_allclose(arrays["values"][t], chosen.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            arrays["probabilities"][t], chosen.logits.softmax(-1), rtol=1e-5, atol=1e-6
        )
        weights = torch.from_numpy(arrays["weights/layer0/shift"][t])
        torch.testing.assert_close(weights, actor.state["layer0/shift"])
        norms = weights.flatten(1).norm(dim=1)
        np.testing.assert_allclose(arrays["readings/layer0/shift_norm"][t], norms, rtol=1e-5)
        observation, rewards, starts, _ = env.step(chosen.actions.numpy())
        assert arrays["rewards"][t].tolist() == rewards.tolist()
        assert arrays["ended"][t].tolist() == starts.tolist()
    env.close()
    for name in ("returns", "values", "actions", "steps", "levels", "rewards", "ended", "active"):
        assert np.array_equal(arrays[name], getattr(shown, name)), name
    assert arrays["ended"].any()


def test_a_trace_that_fails_leaves_nothing(agent: IMPALA, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise KeyboardInterrupt

    recording = Recording(video_seconds=0.3, trace=str(tmp_path / "play.npz"))
    with pytest.raises(KeyboardInterrupt):
        record(agent, Protocol(("maze",)), recording, report=fail)
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match="not a trace"):
        read_trace(tmp_path / "other.npz")


def test_impossible_films_are_refused(agent: IMPALA, tmp_path: Path) -> None:
    recording = Recording(
        str(tmp_path / "film.mp4"),
        video_overlay="ful",
        video_episodes=("bets", "worst", "worst"),
        video_candidates=0,
        video_head=-1,
    )
    with pytest.raises(
        UserError, match=r"did you mean full.*did you mean best.*candidates is 0.*head is -1.*once"
    ):
        record(agent, Protocol(("maze",)), recording)
    with pytest.raises(ValueError, match=r"film\.avi is not a film"):
        VideoWriter(tmp_path / "film.avi", 2, 2, 15)


def test_only_recording(agent: IMPALA, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.save(tmp_path / "it.ckpt")
    words = f"{tmp_path}/it.ckpt --no-scores --games maze --video {tmp_path}/a.gif --trace {tmp_path}/a.npz"
    assert main([*words.split(), "--video-seconds", "1", "--video-overlay", "plain"]) == 0
    out = capsys.readouterr().out
    assert "Video: " in out
    assert "Trace: " in out
    assert "unseen" not in out
    assert len(frames_of(tmp_path / "a.gif")) == 15
    about, arrays = read_trace(tmp_path / "a.npz")
    assert about["checkpoint"].endswith("it.ckpt")
    assert "frames" not in arrays
    with pytest.raises(
        UserError,
        match=r"^3 problems: .*--video .* must end in .mp4, .webm or .gif.*--trace-frames.*--no-scores",
    ):
        main(f"{tmp_path}/it.ckpt --no-scores --json x --video {tmp_path}/a.avi --trace-frames".split())
