"""The command line of eval.py, in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents import IMPALA
from common.errors import UserError
from evaluation import command_line, read_trace
from evaluation.command_line import main, make_protocol, parse
from evaluation.loading import TrainingInfo


@pytest.fixture
def checkpoint(agent: IMPALA, tmp_path: Path) -> str:
    folder = tmp_path / "run" / "checkpoints"
    agent.save(folder / "step_000000000000.ckpt")
    return str(tmp_path / "run")


def test_a_run_is_all_it_needs() -> None:
    training = TrainingInfo(("chaser", "leaper"), "easy", "0:50")
    protocol = make_protocol(parse(["run"]), training)
    assert protocol.games == ("chaser", "leaper")
    assert protocol.splits == ("0:50", "test1", "test2", "test3")  # what it was trained on comes first
    assert (protocol.episodes, protocol.greedy, protocol.every_level, protocol.reset) == (
        200,
        True,
        False,
        None,
    )
    memory = make_protocol(parse(["run"]), TrainingInfo(("maze",), "memory", "train"))
    assert (memory.mode, memory.splits) == ("memory", ("train", "test1", "test2", "test3"))
    assert make_protocol(parse(["run"]), TrainingInfo(("maze",), "exploration", "train")).splits == ("train",)


def test_actions_are_chosen_as_the_run_itself_was_scored() -> None:
    for own in (True, False):
        training = TrainingInfo(("maze",), evaluation_greedy=own)
        assert make_protocol(parse(["run"]), training).greedy is own
        assert make_protocol(parse(["run", "--greedy"]), training).greedy
        assert not make_protocol(parse(["run", "--sample"]), training).greedy


def test_options_override_it() -> None:
    words = (
        "run --games easy6 --splits test2 5:9 --episodes 3 --sample --every-level --reset 20 --mode hard "
        "--seed 8 --num-envs 4"
    )
    protocol = make_protocol(parse(words.split()), TrainingInfo(("chaser",), "easy", "train"))
    assert protocol.games == ("bigfish", "fruitbot", "maze", "leaper", "plunder", "starpilot")
    assert (protocol.splits, protocol.mode, protocol.reset) == (("test2", "5:9"), "hard", "20")
    assert (protocol.episodes, protocol.seed, protocol.num_envs) == (3, 8, 4)
    assert (protocol.greedy, protocol.every_level) == (False, True)
    assert make_protocol(parse(["run", "--greedy"]), TrainingInfo()).greedy


def test_scores_on_the_screen_and_in_a_file(checkpoint: str, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "scores.json"
    words = [checkpoint, "--games", "leaper", "--splits", "0:4", "--every-level", "--json", str(target)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "leaper" in out
    assert "each level of a split exactly once" in out
    data = json.loads(target.read_text())
    assert data["checkpoint"].endswith("step_000000000000.ckpt")
    assert data["scores"][0]["episodes"]["level"] == [0, 1, 2, 3]
    assert data["agent"]["training_levels"] == "0:12"


@pytest.fixture
def no_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an environment was created")

    for module in ("scoring.evaluate", "recording.record", "recording.replay"):
        monkeypatch.setattr(f"evaluation.{module}.ProcgenVecEnv", refuse)


@pytest.mark.usefixtures("no_environments")
@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", "name a run or checkpoint: python eval.py RUN_OR_CHECKPOINT"),
        ("{run} second", "unexpected second"),
        ("{run} --gams maze", "unknown option '--gams': did you mean --games?"),
        ("{run} --episodes many", "--episodes"),
        ("{run} --episodes", "--episodes"),
        ("{run} --episodes 0", "episodes is 0"),
        ("{run} --games leper", "unknown game 'leper': did you mean leaper?"),
        ("{run} --games chaser --mode memory", "game 'chaser' has no memory mode"),
        ("{run} --splits tset1", "did you mean test1"),
        ("{run} --splits all --every-level", "has no end"),
        ("{run} --reset often", "unknown reset rule 'often'"),
        ("{run} --greedy --sample", "contradict each other"),
        ("{run} --device gpu", "unknown device 'gpu'"),
        ("{run} --video film.avi", "must end in .mp4"),
        ("{run} --video film.mp4 --video-seconds 0", "video_seconds is 0"),
        ("{run} --json {run}", "is a directory: name a file"),
        ("{run} --json {run}/none/scores.json", "there is no directory"),
        ("{run}/none", "does not exist"),
        ("{run}/checkpoints", "holds no checkpoints"),
        ("{foreign}", "checkpoint of this project"),
        ("{nameless}", "was not made by train.py, so name what to play"),
    ],
)
def test_each_mistake_gets_one_line(
    words: str, part: str, checkpoint: str, make_agent: Callable[..., IMPALA], tmp_path: Path
) -> None:
    foreign, nameless = tmp_path / "foreign.ckpt", tmp_path / "nameless.ckpt"
    foreign.write_text("{}")
    if "{nameless}" in words:
        stranger = make_agent()
        stranger.experiment = {}
        stranger.save(nameless)
    filled = words.format(run=checkpoint, foreign=foreign, nameless=nameless)
    with pytest.raises(UserError) as caught:
        main(filled.split())
    assert part in str(caught.value)
    assert "problems" not in str(caught.value)  # nothing else is complained about
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_environments")
def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    words = f"{tmp_path}/none --games mzae --splits tset1 --episodes 0 --json {tmp_path} --greedy --sample"
    with pytest.raises(UserError, match=r"^6 problems: "):
        main(words.split())


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--splits SPLIT ... levels to play" in text
    assert "(default: train test1 test2 test3)" in text
    assert "{None}" not in text
    assert command_line.PROGRAM in text


def test_only_recording(agent: IMPALA, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.save(tmp_path / "it.ckpt")
    words = f"{tmp_path}/it.ckpt --no-scores --games maze --video {tmp_path}/a.gif --trace {tmp_path}/a.npz"
    assert main([*words.split(), "--video-seconds", "1", "--video-overlay", "plain"]) == 0
    out = capsys.readouterr().out
    assert "Video: " in out
    said, _, written = out.partition("Trace: ")
    assert re.search(
        r"^The trace of 15 steps takes about \d+\.\d MB before it is compressed", said, re.MULTILINE
    )
    assert re.search(r"a\.npz \(\d+\.\d MB\)", written)
    assert "unseen" not in out
    assert (tmp_path / "a.gif").stat().st_size > 0
    about, arrays = read_trace(tmp_path / "a.npz")
    assert about["checkpoint"].endswith("it.ckpt")
    assert "frames" not in arrays
    with pytest.raises(
        UserError,
        match=r"^3 problems: .*--video .* must end in .mp4, .webm or .gif.*--trace-frames.*--no-scores",
    ):
        main(f"{tmp_path}/it.ckpt --no-scores --json x --video {tmp_path}/a.avi --trace-frames".split())
