"""From a run to the weights and the card that others get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import agents
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation import Protocol, evaluate
from evaluation.loading import find_checkpoint, load_agent
from evaluation.trained import read_card, trained_checkpoint, trained_names
from evaluation.trained.export import main
from experiments.launch import train
from helpers import assert_same, tiny_run
from records.directory import RunDirectory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of 480 steps in easy mode, logged every 80."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "tiny")
    assert train(tiny_run(evaluation_greedy=False), run.path, command=["python", "train.py", "tiny"]) == 0
    return run


@pytest.fixture(scope="module")
def exported(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    assert main([str(run.path), "--name", "tiny-srwm", "--out", str(out), "--episodes", "1"]) == 0
    return out


def test_the_weights_play_as_the_run_does(run: RunDirectory, exported: Path) -> None:
    whole, alone = agents.load(find_checkpoint(run.path)), agents.load(exported / "tiny-srwm.ckpt")
    assert_same(whole.policy.state_dict(), alone.policy.state_dict())
    protocol = Protocol(("maze", "bigfish"), splits=("test1",), episodes=1, greedy=False)
    assert evaluate(whole, protocol).scores == evaluate(alone, protocol).scores
    assert alone.num_timesteps == 480


def test_how_actions_are_chosen_is_part_of_the_agent(run: RunDirectory, tmp_path: Path) -> None:
    words = [str(run.path), "--name", "tiny", "--out", str(tmp_path), "--episodes", "1", "--greedy"]
    assert main(words) == 0
    loaded = load_agent(str(tmp_path / "tiny.ckpt"), "cpu", [])
    assert loaded is not None
    assert loaded.training.evaluation_greedy  # not so in the run
    assert "greedy" in json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))["protocol"]
    with pytest.raises(UserError, match="contradict"):
        main([*words, "--sample"])


def test_a_twist_is_part_of_what_the_card_scores(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "twisted")
    config = tiny_run(twist="blank after 1", evaluation_episodes=None)
    assert train(config, run.path, command=["python", "train.py", "tiny"]) == 0
    assert main([str(run.path), "--name", "tiny", "--out", str(tmp_path), "--episodes", "1"]) == 0
    card = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert "twist: blank after 1" in card["protocol"]


def test_what_only_a_continuation_needs_is_left_out(run: RunDirectory, exported: Path) -> None:
    whole, alone = find_checkpoint(run.path), exported / "tiny-srwm.ckpt"
    assert alone.stat().st_size < 0.6 * whole.stat().st_size
    content = agents.read_checkpoint(alone)
    assert content["learner"]["optimizer"]["state"] == {}
    assert not {"env", "collector"} & set(content["run"])


def test_its_encoder_computes_in_what_the_machine_that_plays_it_has_units_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.precision.has_bfloat16_units", lambda device: True)
    run = RunDirectory(tmp_path / "run")
    config = tiny_run(precision="auto", evaluation_episodes=None)
    assert train(config, run.path, command=["python", "train.py", "tiny"]) == 0
    assert agents.load(run.newest_checkpoint()).policy_config.precision == "bfloat16"
    monkeypatch.setattr("policies.precision.has_bfloat16_units", lambda device: False)
    assert main([str(run.path), "--name", "tiny", "--out", str(tmp_path), "--episodes", "1"]) == 0
    assert agents.load(tmp_path / "tiny.ckpt").policy_config.precision == "float32"
    monkeypatch.setattr("policies.precision.has_bfloat16_units", lambda device: True)
    assert agents.load(tmp_path / "tiny.ckpt").policy_config.precision == "bfloat16"


@pytest.mark.parametrize("name", trained_names())
def test_no_agent_that_comes_along_insists_on_bfloat16(name: str) -> None:
    path = trained_checkpoint(name)
    assert path is not None
    assert agents.read_checkpoint(path)["policy_config"]["precision"] in ("auto", "float32")


def test_the_weights_can_be_trained_on(exported: Path) -> None:
    problems: list[str] = []
    loaded = load_agent(str(exported / "tiny-srwm.ckpt"), "cpu", problems)
    assert loaded is not None
    assert problems == []
    agent = loaded.agent
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    env = ProcgenVecEnv("maze", 4, seed=0, num_threads=0)
    agent.set_env(env)
    agent.learn(80, reset_num_timesteps=False)
    env.close()
    assert agent.num_timesteps == 560
    assert any(not torch.equal(before[name], tensor) for name, tensor in agent.policy.state_dict().items())


def test_the_card_says_where_it_comes_from(run: RunDirectory, exported: Path) -> None:
    card = json.loads((exported / "tiny-srwm.json").read_text())
    assert card == read_card("tiny-srwm", exported)
    assert (card["steps"], card["commands"]) == (480, ["python train.py tiny"])
    assert card["settings"]["policy"]["core"]["name"] == "srwm"
    assert card["curve"]["steps"] == [80, 160, 240, 320, 400, 480]
    assert set(card["curve"]) == {"steps", "maze", "bigfish"}
    assert 0 < card["hours"] < 1
    assert {(score["game"], score["split"]) for score in card["scores"]} == {
        (game, split) for game in ("maze", "bigfish") for split in ("train", "test1", "test2", "test3")
    }
    assert card["protocol"].startswith("sampled")


def test_its_name_stands_where_a_run_does(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained_names(exported) == ["tiny-srwm"]
    assert trained_checkpoint("tiny-srwm", exported) == exported / "tiny-srwm.ckpt"
    assert trained_checkpoint("tiny", exported) is None
    monkeypatch.setattr(
        "evaluation.loading.trained_checkpoint", lambda name: trained_checkpoint(name, exported)
    )
    assert find_checkpoint("tiny-srwm") == exported / "tiny-srwm.ckpt"


def test_a_file_of_that_name_goes_first(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.loading.trained_checkpoint", lambda name: exported / "tiny-srwm.ckpt")
    monkeypatch.chdir(tmp_path)
    mine = Path("tiny-srwm.ckpt")
    mine.write_bytes((exported / "tiny-srwm.ckpt").read_bytes())
    assert find_checkpoint("tiny-srwm") == Path("tiny-srwm")


@pytest.mark.parametrize("name", ["", "../up", "With Spaces", ".hidden", "x" * 65])
def test_impossible_names_are_refused(name: str, run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--name"):
        main([str(run.path), "--name", name, "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="create it first"):
        main([str(run.path), "--name", "x", "--out", str(tmp_path / "missing")])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        main([str(tmp_path / "missing"), "--name", "x", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
