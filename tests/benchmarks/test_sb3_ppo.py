"""Stable-Baselines3's PPO on our environment, as a run of this project."""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import agents
from agents import PPO
from benchmarks import sb3_ppo
from benchmarks.sb3_ppo import LABEL, copy_weights, make_model
from common.errors import UserError
from envs import ProcgenVecEnv
from evaluation.report.found_runs import find_runs
from evaluation.report.gather import gather
from experiments import launch
from helpers import same, tiny_run
from records.config import TrainConfig
from records.directory import RunDirectory, checkpoint_step


def tiny(**changes: Any) -> TrainConfig:
    """Rollouts of 64 steps in 4 environments: 256 environment steps."""
    settings = {
        "games": ["chaser"],
        "total_steps": 768,
        "policy": "feedforward",
        "algorithm": "ppo",
        "core": {},
        "agent": {"rollout_steps": 64, "minibatches": 2, "epochs": 2, "value_clip_range": None},
        "checkpoint_every_steps": 256,
        "log_every_steps": 256,
        "evaluation_episodes": 1,
        "evaluation_splits": ["train"],
    }
    return tiny_run(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("baseline") / "sb3-seed0")
    assert sb3_ppo.train(tiny(), run.path, ["mine"]) == 0
    return run


def rows(run: RunDirectory) -> list[dict[str, str]]:
    with run.progress_file.open(newline="") as file:
        return list(csv.DictReader(file))


def test_its_run_is_like_any_other(finished: RunDirectory) -> None:
    assert [checkpoint_step(path) for path in finished.checkpoint_files()] == [256, 512, 768]
    found = rows(finished)
    assert [row["time/total_timesteps"] for row in found] == ["256", "512", "768"]
    assert float(found[-1]["time/sps"]) > 0
    assert {"game/chaser/return", "rollout/normalized_mean", "train/value_loss"} <= found[-1].keys()
    scores = json.loads(finished.evaluation_file.read_text())
    assert (scores["agent"]["algorithm"], scores["agent"]["steps"]) == ("ppo", 768)
    assert finished.read_config() == tiny()
    assert agents.load(finished.newest_checkpoint()).num_timesteps == 768


def test_train_py_refuses_to_go_on_with_it(finished: RunDirectory) -> None:
    before = finished.config_file.read_bytes()
    with pytest.raises(UserError, match=r"train\.py did not train this run"):
        launch.resume(finished.path, 1024)
    assert finished.config_file.read_bytes() == before


def test_a_report_shows_it_beside_our_own_run(finished: RunDirectory) -> None:
    ours = finished.path.parent / "ours-seed0"
    assert launch.train(tiny(), ours) == 0
    study = gather(find_runs([str(finished.path.parent)]))
    assert [group.label for group in study.groups] == [LABEL, "feedforward"]
    assert [len(group.rows) for group in study.groups] == [1, 1]


def test_its_label_joins_those_of_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sb3_ppo, "_run", lambda *arguments: 0)
    groups = [{"group": "usual", "label": "Usual"}]
    (tmp_path / "suite.json").write_text(json.dumps({"suite": "mine", "groups": groups}))
    for seed in (3, 4):
        sb3_ppo.train(tiny(seed=seed), tmp_path / f"sb3-seed{seed}")
    record = json.loads((tmp_path / "suite.json").read_text())
    assert record == {"suite": "mine", "groups": [*groups, {"group": "sb3", "label": LABEL}]}


def test_its_checkpoints_are_ours_with_their_weights() -> None:
    config = tiny()
    env = ProcgenVecEnv(config.games, 4, num_threads=0)
    try:
        ours = PPO(config.policy, env, config.agent, device="cpu")
        theirs = make_model(config, env, seed=3)
        theirs.learn(256)
        copy_weights(theirs, ours)
        observation = env.reset()
        _, value, log_prob = theirs.policy(
            {
                "rgb": torch.as_tensor(observation["rgb"]).permute(0, 3, 1, 2),
                "reward": torch.as_tensor(observation["reward"]),
            },
            deterministic=True,
        )
        output = ours.policy(
            torch.as_tensor(observation["rgb"])[None],
            torch.as_tensor(observation["reward"])[None],
            ours.policy.initial_state(4),
            torch.ones(1, 4, dtype=torch.bool),
        )
    finally:
        env.close()
    torch.testing.assert_close(output.value[0], value.squeeze(-1))
    torch.testing.assert_close(output.logits[0].log_softmax(-1).max(-1).values, log_prob)
    assert ours.num_timesteps == 256


def test_it_has_the_settings_of_our_ppo() -> None:
    agent = {"rollout_steps": 16, "minibatches": 2, "epochs": 5, "value_cost": 0.3, "discount": 0.9}
    config = tiny(agent=agent)
    env = ProcgenVecEnv(config.games, 4, num_threads=0)
    try:
        model: Any = make_model(config, env, seed=3)
    finally:
        env.close()
    assert (model.n_steps, model.batch_size, model.n_epochs) == (16, 32, 5)
    assert (model.gamma, model.gae_lambda, model.ent_coef, model.max_grad_norm) == (0.9, 0.95, 0.01, 0.5)
    assert model.vf_coef == 0.15  # of the whole squared error, ours is of half of it
    assert model.clip_range(1.0) == model.clip_range_vf(1.0) == 0.2
    assert model.policy.optimizer.defaults["eps"] == 1e-5
    assert model.policy.optimizer.defaults["lr"] == 5e-4
    rewards = model.get_vec_normalize_env()
    assert (rewards.norm_obs, rewards.norm_reward, rewards.gamma, rewards.clip_reward) == (
        False,
        True,
        0.9,
        10.0,
    )


def test_it_goes_on_with_weights_optimizer_and_reward_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    loaded: list[Any] = []
    make, load = sb3_ppo.make_model, sb3_ppo.load_model

    def spy(*arguments: Any) -> Any:
        model = load(*arguments)
        scale = model.get_vec_normalize_env().ret_rms
        loaded.append((deepcopy(model.get_parameters()), deepcopy(scale), model.num_timesteps))
        return model

    monkeypatch.setattr(sb3_ppo, "make_model", lambda *arguments: made.append(make(*arguments)) or made[-1])
    monkeypatch.setattr(sb3_ppo, "load_model", spy)
    run = RunDirectory(tmp_path / "sb3-seed0")
    assert sb3_ppo.train(tiny(total_steps=512), run.path, ["mine"]) == 0
    before, scale = made[0].get_parameters(), made[0].get_vec_normalize_env().ret_rms
    assert sb3_ppo.resume(run.path, 1024, ["more"]) == 0
    ((after, returns, steps),) = loaded
    assert steps == 512
    assert same(before["policy"], after["policy"])
    assert before["policy.optimizer"]["state"].keys() == after["policy.optimizer"]["state"].keys() != set()
    assert (returns.mean, returns.var, returns.count) == (scale.mean, scale.var, scale.count)
    assert returns.count > 256
    assert [row["time/total_timesteps"] for row in rows(run)] == ["256", "512", "768", "1024"]
    assert agents.load(run.newest_checkpoint()).num_timesteps == 1024
    assert (run.path / "command.txt").read_text().splitlines() == ["mine", "more"]
    with pytest.raises(UserError, match="has ended"):
        sb3_ppo.resume(run.path)
    model_file = run.newest_checkpoint().with_suffix(".sb3.zip")
    model_file.write_bytes(model_file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        sb3_ppo.resume(run.path, 2048)
    model_file.unlink()
    with pytest.raises(UserError, match=r"is not of .*: continue it with python train\.py --resume"):
        sb3_ppo.resume(run.path, 2048)
    with pytest.raises(UserError, match="give --total-steps alone"):
        sb3_ppo.main(["--resume", str(run.path), "--learning-rate", "1e-4"])


@pytest.mark.parametrize(
    ("config", "name", "part"),
    [
        (tiny(policy="lstm", algorithm="impala", agent={}), "a-seed0", "give --policy feedforward"),
        (replace(tiny(), games=("chaser", "maze")), "a-seed0", "on one game"),
        (tiny(agent={"reward_transform": "clip", "minibatches": 2}), "a-seed0", "not clipped"),
        (tiny(), "a", "name it .*a-seed0"),
    ],
)
def test_what_it_cannot_do(config: TrainConfig, name: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=part):
        sb3_ppo.train(config, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_its_command_line_is_that_of_train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr(sb3_ppo, "train", lambda *arguments: seen.append(arguments) or 0)
    assert sb3_ppo.main(["openai-ppo-easy", "--games", "maze", "--policy", "feedforward"]) == 0
    ((config, path, command),) = seen
    assert (config.games, path.parent) == (("maze",), Path("runs/sb3_ppo"))
    assert command[:3] == ["python", "-m", "benchmarks.sb3_ppo"]
    assert sb3_ppo.problems(config, path) == []
    with pytest.raises(UserError, match="unknown preset"):
        sb3_ppo.main(["opnai"])
    assert sb3_ppo.main(["--help"]) == 0
    assert "python -m benchmarks.sb3_ppo openai-ppo-easy" in capsys.readouterr().out
