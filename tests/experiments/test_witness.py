"""Stable-Baselines3's PPO on our environment, as a run of this project."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import agents
from common.errors import UserError
from envs import ProcgenVecEnv
from experiments import launch, witness
from experiments.witness import Witness, is_witness
from records.config import TrainConfig, from_json
from records.directory import RunDirectory, checkpoint_step


def tiny(**changes: object) -> TrainConfig:
    """Rollouts of 64 steps in 4 slots: 256 environment steps."""
    return from_json(
        {
            "games": ["chaser"],
            "slots": 4,
            "total_steps": 768,
            "policy": "feedforward",
            "algorithm": "ppo",
            "encoder": {"channels": [4], "hidden": 8},
            "agent": {"rollout_steps": 64, "minibatches": 2, "epochs": 2, "value_clip_range": None},
            "checkpoint_every_steps": 256,
            "log_every_steps": 256,
            "env_threads": 0,
            "device": "cpu",
            "evaluation_episodes": 1,
            "evaluation_splits": ["train"],
            "videos": False,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("witness") / "run")
    assert witness.train(tiny(), run.path, command=["mine"]) == 0
    return run


def rows(run: RunDirectory) -> list[dict[str, str]]:
    with run.progress_file.open(newline="") as file:
        return list(csv.DictReader(file))


def test_its_run_is_like_any_other(finished: RunDirectory) -> None:
    assert is_witness(finished)
    assert [checkpoint_step(path) for path in finished.checkpoint_files()] == [256, 512, 768]
    found = rows(finished)
    assert [row["time/total_timesteps"] for row in found] == ["256", "512", "768"]
    assert float(found[-1]["time/sps"]) > 0
    assert {"game/chaser/return", "rollout/normalized_mean"} <= found[-1].keys()
    scores = json.loads(finished.evaluation_file.read_text())
    assert (scores["agent"]["algorithm"], scores["agent"]["steps"]) == ("ppo", 768)
    assert finished.read_config() == tiny()


def test_its_checkpoints_are_ours_with_their_weights() -> None:
    config = tiny()
    env = ProcgenVecEnv(config.games, config.slots, num_threads=0)
    try:
        theirs = Witness(config, env, seed=3)
        theirs.model.learn(256)
        ours = theirs.agent()
        observation = env.reset()
        _, value, log_prob = theirs.model.policy(
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
    config = tiny(
        agent={"rollout_steps": 16, "minibatches": 2, "epochs": 5, "value_cost": 0.3, "discount": 0.9}
    )
    env = ProcgenVecEnv(config.games, config.slots, num_threads=0)
    try:
        model: Any = Witness(config, env, seed=3).model
    finally:
        env.close()
    assert (model.n_steps, model.batch_size, model.n_epochs) == (16, 32, 5)
    assert (model.gamma, model.gae_lambda, model.ent_coef, model.max_grad_norm) == (0.9, 0.95, 0.01, 0.5)
    assert model.vf_coef == 0.15  # of the whole squared error, ours is of half of it
    assert model.clip_range(1.0) == model.clip_range_vf(1.0) == 0.2
    assert model.policy.optimizer.defaults["eps"] == 1e-5
    assert model.policy.optimizer.defaults["lr"] == 5e-4
    assert (model.env.norm_obs, model.env.norm_reward, model.env.gamma, model.env.clip_reward) == (
        False,
        True,
        0.9,
        10.0,
    )


def test_it_goes_on_with_weights_optimizer_and_reward_scale(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = torch.load(finished.newest_checkpoint().with_suffix(".stable-baselines3.pt"), weights_only=True)
    taken: list[Witness] = []
    load = Witness.load

    def spy(self: Witness, path: Path) -> None:
        load(self, path)
        taken.append(self)
        assert self.model.num_timesteps == 768
        now = self.model.get_parameters()
        for name, tensor in saved["parameters"]["policy"].items():
            assert torch.equal(now["policy"][name], tensor)
        assert (
            now["policy.optimizer"]["state"].keys()
            == saved["parameters"]["policy.optimizer"]["state"].keys()
            != set()
        )
        returns = self.rewards.ret_rms
        assert [float(returns.mean), float(returns.var), float(returns.count)] == saved["returns"]

    monkeypatch.setattr(Witness, "load", spy)
    assert witness.resume(finished.path, 1024, command=["more"]) == 0
    assert len(taken) == 1
    assert [row["time/total_timesteps"] for row in rows(finished)] == ["256", "512", "768", "1024"]
    assert agents.load(finished.newest_checkpoint()).num_timesteps == 1024
    assert (finished.path / "command.txt").read_text().splitlines() == ["mine", "more"]
    with pytest.raises(UserError, match="has ended at 1024 of 1024 steps"):
        witness.resume(finished.path)
    own = finished.newest_checkpoint().with_suffix(".stable-baselines3.pt")
    own.write_bytes(own.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        witness.resume(finished.path, 2048)
    own.unlink()
    with pytest.raises(UserError, match="is missing"):
        witness.resume(finished.path, 2048)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (tiny(policy="lstm"), "not lstm with ppo: give --policy feedforward"),
        (replace(tiny(), games=("chaser", "maze")), "plays one game, not 2"),
        (tiny(agent={"reward_transform": "clip", "minibatches": 2}), "does not clip rewards"),
        (replace(tiny(), slots=0), "slots"),
    ],
)
def test_what_it_cannot_do(config: TrainConfig, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=part):
        witness.train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_our_own_runs_are_not_its(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(tiny(), [])
    with pytest.raises(
        UserError, match=r"is not a run of the witness: continue it with python train\.py --resume"
    ):
        witness.resume(run.path)
    assert not is_witness(run)


def test_its_command_line_is_that_of_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr(witness, "train", lambda *args, **kwargs: seen.append((args, kwargs)) or 0)
    assert witness.main(["openai-ppo-easy", "--games", "maze", "--run-dir", "here"]) == 0
    ((config, path), kwargs) = seen[0]
    assert (config.games, config.policy, path) == (("maze",), "feedforward", Path("here"))
    assert kwargs["command"][:3] == ["python", "train.py", "witness"]
    with pytest.raises(UserError, match="unknown preset"):
        witness.main(["opnai"])


def test_our_trainer_does_not_continue_it(finished: RunDirectory) -> None:
    before = finished.config_file.read_bytes()
    with pytest.raises(UserError, match="is a run of the witness: continue it with"):
        launch.resume(finished.path, 10_000)
    assert finished.config_file.read_bytes() == before
