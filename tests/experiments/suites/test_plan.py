"""From a suite to its runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from experiments.command_line import Launch, parse
from experiments.presets import PRESETS
from experiments.suites.definition import Suite, find, read
from experiments.suites.plan import (
    Options,
    conflicts,
    directory_name,
    make_plan,
    scaled,
)
from records.directory import group_of, read_record


@pytest.fixture
def mine(tmp_path: Path) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        preset = "quick"
        seeds = [0, 1]
        [settings]
        videos = false
        agent.value_cost = 0.4
        [grid]
        policy = ["srwm", "lstm"]
        agent.entropy_cost = [0.01, 0.02]
        """
    )
    return read(path)


def test_every_combination_and_seed_is_a_run_and_an_ordinary_command(mine: Suite, tmp_path: Path) -> None:
    plan = make_plan(mine, Options(runs=tmp_path))
    names = [f"{p}-entropy_cost-{e}" for p in ("srwm", "lstm") for e in ("0.01", "0.02")]
    assert [run.name for run in plan.runs] == [f"{name}-seed{seed}" for seed in (0, 1) for name in names]
    assert [run.group for run in plan.runs[:4]] == names
    assert plan.runs[3].label == "lstm, entropy_cost 0.02"
    for run in plan.runs:
        run.write_config()
        launch = parse(run.command)
        assert isinstance(launch, Launch)
        assert launch.config == run.config
        assert launch.run_dir == str(tmp_path / "mine" / run.name)
    config = plan.runs[-1].config
    assert (config.policy_name, config.seed, config.videos) == ("lstm", 1, False)
    assert (config.agent.entropy_cost, config.agent.value_cost) == (0.02, 0.4)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["configs"]


def test_options_override(mine: Suite) -> None:
    plan = make_plan(mine, Options(seeds=(5,)), ("--num-envs", "36", "--agent.entropy-cost", "0.5"))
    assert {run.config.seed for run in plan.runs} == {5}
    assert {(run.config.num_envs, run.config.agent.entropy_cost) for run in plan.runs} == {(36, 0.5)}


def test_games_are_chosen_for_experts() -> None:
    plan = make_plan(read(find("paper-experts")), Options(games=("memory4",), seeds=(0,)))
    assert {run.config.games for run in plan.runs} == {("dodgeball",), ("heist",), ("maze",), ("miner",)}
    assert plan.runs[0].name == "dodgeball-fake_srwm-seed0"


@pytest.mark.parametrize(
    ("options", "words", "part"),
    [
        (Options(scale=0.0), (), "--scale is 0.0: give more than 0"),
        (Options(scale=2.0), (), "--scale is 2.0: give at most 1"),
        (Options(seeds=(1, 1)), (), "--seeds lists a seed twice"),
        (Options(games=("maze",)), (), "plays its games together"),
        (Options(), ("--seed", "3"), "--seed cannot be given for every run"),
        (Options(), ("--total-steps=3",), "use --seeds, --runs and --scale"),
        (Options(), ("--num-envs", "7"), "4 problems: run srwm-entropy_cost-0.01: 7 environments"),
        (Options(), ("--nonsense", "7"), "unknown option '--nonsense'"),
        (Options(), ("--config", "x"), "--config cannot be given for every run"),
    ],
)
def test_impossible_options(mine: Suite, options: Options, words: tuple[str, ...], part: str) -> None:
    with pytest.raises(UserError) as raised:
        make_plan(mine, options, words)
    assert part in str(raised.value)


def test_a_full_model_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "quick"\nfull_model = "srmw"\ngrid.policy = ["srwm", "lstm"]')
    with pytest.raises(UserError, match="full_model 'srmw' is none of its groups: srwm, lstm"):
        make_plan(read(path))


def test_a_rehearsal_is_smaller_in_everything_and_goes_elsewhere() -> None:
    suite = read(find("paper-easy6"))
    whole, part = (make_plan(suite, Options(scale=scale, seeds=(0,))) for scale in (1.0, 0.001))
    assert (whole.directory.name, part.directory.name) == ("paper-easy6", "paper-easy6-scale-0.001")
    config = part.runs[0].config
    assert config.total_steps == 300_000
    assert config.checkpoint_every_steps == 60_000
    assert config.log_every_steps == 6_000
    assert config.evaluation_episodes == 41  # about 300,000 steps: 6 games x 4 splits x 300 steps
    assert config.evaluation_splits == whole.runs[0].config.evaluation_splits


def test_a_rehearsal_trains_and_scores_a_little_at_least() -> None:
    config = make_plan(read(find("paper-easy6"))).runs[0].config
    tiny = scaled(config, 1e-9)
    assert tiny.total_steps == 2 * config.steps_per_rollout
    assert tiny.checkpoint_every_steps == tiny.log_every_steps == config.steps_per_rollout
    assert tiny.evaluation_episodes == 10
    assert scaled(config, 1.0) == config


@pytest.mark.parametrize("scale", [1, 0.5, 1e-5])
def test_directories_tell_scales_apart(scale: float, mine: Suite) -> None:
    expected = {1: "mine", 0.5: "mine-scale-0.5", 1e-5: "mine-scale-1e-05"}
    assert directory_name(mine, Options(scale=scale)) == expected[scale]


def test_thousands_of_seeds_are_planned_at_once_and_more_is_a_mistake(mine: Suite) -> None:
    groups = len(make_plan(mine).runs) // len(mine.seeds)
    seeds = tuple(range(10_000 // groups))
    plan = make_plan(mine, Options(seeds=seeds))
    assert len(plan.runs) == groups * len(seeds)
    assert [run.config.seed for run in plan.runs[::groups]] == list(seeds)
    with pytest.raises(UserError, match="runs: at most 10,000 are possible"):
        make_plan(mine, Options(seeds=tuple(range(10_001))))


def test_values_are_read_as_on_a_command_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        preset = "quick"
        [settings]
        total_steps = 1e6
        checkpoint_every_minutes = "none"
        evaluation_splits = "test2"
        [grid]
        algorithm = ["ppo"]
        reset = ["never", 50]
        games = ["maze", ["heist", "miner"]]
        """
    )
    runs = make_plan(read(path)).runs
    assert [(run.group, run.config.policy.reset, run.config.games) for run in runs] == [
        ("ppo-reset-never-maze", "never", ("maze",)),
        ("ppo-reset-never-heist-miner", "never", ("heist", "miner")),
        ("ppo-reset-50-maze", "50", ("maze",)),
        ("ppo-reset-50-heist-miner", "50", ("heist", "miner")),
    ]
    config = runs[0].config
    assert (config.total_steps, config.checkpoint_every_minutes) == (1_000_000, None)
    assert config.evaluation_splits == ("test2",)
    assert config.agent == PRESETS["quick"].agents["ppo"]


def test_the_record_keeps_groups_that_were_made_before(tmp_path: Path) -> None:
    suite = read(find("paper-experts"))
    for games in ("maze", "heist"):
        make_plan(suite, Options(games=(games,), runs=tmp_path, scale=0.5)).write_record()
    record = read_record(tmp_path / "paper-experts-scale-0.5")
    assert record is not None
    assert [item["group"] for item in record["groups"]] == [
        f"{game}-{policy}" for game in ("maze", "heist") for policy in ("fake_srwm", "srwm")
    ]
    assert (record["suite"], record["scale"]) == ("paper-experts", 0.5)
    (tmp_path / "suite.json").write_text("[")
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None
    assert group_of("a-seed-b-seed12") == "a-seed-b"


def test_a_directory_with_other_settings_is_a_conflict(mine: Suite, tmp_path: Path) -> None:
    planned = make_plan(mine, Options(runs=tmp_path)).runs[0]
    assert conflicts(planned) == []
    planned.run.create(planned.config, [])
    assert conflicts(planned) == []
    settings = json.loads(planned.run.config_file.read_text())
    # Where it was begun decides the device and, where the plan leaves them open, the groups of environments.
    planned.run.config_file.write_text(
        json.dumps({**settings, "device": "cuda:3", "torch_threads": 7, "env_groups": 1})
    )
    assert conflicts(planned) == []
    other = replace(planned, config=replace(planned.config, env_groups=2))
    assert "was made with other env_groups" in conflicts(other)[0]
    planned.run.config_file.write_text(json.dumps({**settings, "num_envs": 36}))
    (line,) = conflicts(planned)
    assert line.startswith(f"{planned.run} was made with other num_envs: ")
