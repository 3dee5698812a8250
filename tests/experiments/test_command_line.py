from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents import ALGORITHMS
from common.config import options
from common.errors import UserError
from evaluation.trained import read_card
from experiments.command_line import Launch, Resume, parse
from experiments.presets import PRESETS
from policies import CORES, PolicyConfig, core_config
from policies.cores.srwm import SrwmConfig
from policies.encoders.early_pool import EarlyPoolConfig
from policies.encoders.small_frames import SmallFramesConfig
from records.config import from_json, to_json


def launch(line: str) -> Launch:
    command = parse(line.split())
    assert isinstance(command, Launch)
    return command


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_its_configuration(name: str) -> None:
    assert launch(name) == Launch(name, PRESETS[name].config, None)


def test_every_kind_of_value_can_be_overridden() -> None:
    config = launch(
        "quick --games maze heist --num-envs=64 --total-steps 25e6 --agent.learning-rate 1e-4 --core.heads 4 "
        "--encoder.channels 4 8 --bptt-span 10 --checkpoint-every-steps none --no-videos --run-dir runs/mine"
    ).config
    expected = PRESETS["quick"].config
    assert config == replace(
        expected,
        games=("maze", "heist"),
        num_envs=64,
        total_steps=25_000_000,
        agent=replace(expected.agent, learning_rate=1e-4),
        policy=PolicyConfig(
            core_config("srwm_sharp", heads=4),
            EarlyPoolConfig(channels=(4, 8)),
            bptt_span=10,
            initial_weights="quiet-layers",
            bypass=True,
        ),
        checkpoint_every_steps=None,
        videos=False,
    )


def test_the_home_of_a_user_is_not_a_directory_called_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert launch("quick --run-dir=~/a").run_dir == str(tmp_path / "a")


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "words",
    [
        [LONG],
        ["quick", LONG],
        ["quick", f"--{LONG}"],
        ["quick", "--games", LONG],
        ["quick", "--levels", LONG],
        ["quick", "--levels", "9" * 5000 + ":1"],
        ["quick", "--seed", "9" * 5000],
        ["quick", "--device", LONG],
        ["quick", "--reset", "9" * 30],
        ["quick", "--bptt-span", "9" * 30],
        ["quick", "--agent.learning-rate", "1e308"],
        ["quick", "--core.layers", "1000000000"],
        ["quick", "--core.width", "65536", "--core.feedforward", "65536"],
        ["quick", "--num-envs", "999999999996"],
        ["quick", "--evaluation-splits", "\x1b[2J\u202e"],
        ["--resume", "a", LONG],
    ],
)
def test_bad_words_are_refused_in_a_short_and_printable_line(words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse(words)
    assert len(str(raised.value)) <= 1100
    assert str(raised.value).isprintable()


def test_run_dir_is_no_setting() -> None:
    assert launch("quick --run-dir runs/mine").run_dir == "runs/mine"


@pytest.mark.parametrize(
    "games", ["--games memory4", "--games dodgeball,heist,maze,miner", "--games=memory4"]
)
def test_task_sets_and_commas(games: str) -> None:
    config = launch(f"quick --num-envs 64 --mode memory {games}").config
    assert config.games == ("dodgeball", "heist", "maze", "miner")


@pytest.mark.parametrize("policy", ["--policy lstm", "--policy=lstm", "--policy srwm --policy lstm"])
def test_options_are_those_of_the_chosen_policy(policy: str) -> None:
    config = launch(f"quick {policy} --core.hidden 32").config
    assert config.policy_name == "lstm"
    assert config.policy.core == core_config("lstm", hidden=32)


def test_options_are_those_of_the_chosen_algorithm() -> None:
    config = launch("quick --algorithm ppo --agent.clip-range 0.1").config
    assert config.algorithm_name == "ppo"
    assert config.agent == replace(PRESETS["quick"].agents["ppo"], clip_range=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize("preset", PRESETS)
def test_options_are_those_of_the_chosen_encoder(preset: str) -> None:
    encoder = launch(f"{preset} --encoder small_frames --encoder.shrink 3").config.policy.encoder
    assert isinstance(encoder, SmallFramesConfig)
    assert encoder.shrink == 3


def test_help_shows_the_options_of_the_chosen_classes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(["quick", "--policy", "lstm", "--algorithm", "ppo", "--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for text in (
        "--core.hidden N",
        "--agent.clip-range X",
        "--bptt-span N|none",
        "--run-dir DIR",
        "--videos / --no-videos",
        "train.py quick",
        "core (of policy lstm):",
        "agent (of algorithm ppo):",
        "(default: 66)",
    ):
        assert text in shown.out
    for text in ("--core.heads", "--agent.batch-unrolls"):
        assert text not in shown.out


def test_help_describes_a_setting_as_the_chosen_algorithm_means_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(["quick", "--algorithm", "appo", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "clipping bounds how far they go (default: 3)" in printed
    assert "nothing bounds" not in printed


@pytest.mark.parametrize("line", ["", "--help", "-h"])
def test_overview(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(line.split()) is None
    shown = capsys.readouterr().out
    for name, preset in PRESETS.items():
        assert name in shown
        assert preset.summary in shown


def test_an_agent_to_start_from_brings_its_settings() -> None:
    card = read_card("starpilot-srwm")
    launched = launch("--start starpilot-srwm --games maze --agent.learning-rate 1e-5")
    expected = {**card["settings"], "start": "starpilot-srwm", "games": ["maze"]}
    expected["agent"] = {**expected["agent"], "learning_rate": 1e-5}
    assert launched.config == from_json(expected)
    assert launched.name == "starpilot-srwm"
    own = launch("learn --start starpilot-feedforward")
    assert own.config == replace(launch("learn").config, start="starpilot-feedforward")


@pytest.mark.parametrize("start", ["runs/x@best", "runs/x-best.ckpt"])
def test_a_run_is_named_after_the_agent_that_it_starts_from(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.command_line.settings_of", lambda start: launch("learn").config)
    assert launch(f"--start {start}").name == "x-best"


def test_resume() -> None:
    assert parse(["--resume", "runs/x"]) == Resume("runs/x")
    assert parse(["--resume=runs/x", "--total-steps", "2e6"]) == Resume("runs/x", 2_000_000)
    assert parse(["--resume", "runs/x", "--learning-rate", "1e-4"]) == Resume("runs/x", None, 1e-4)


BAD = {
    "quik": ["unknown preset 'quik': did you mean quick?"],
    "--games maze": ["name a preset before the options: quick, learn, paper-easy6"],
    "quick maze": ["unexpected word 'maze'"],
    "quick --games bigfsh": ["unknown game 'bigfsh': did you mean bigfish?"],
    "quick --policy srmw": ["unknown policy 'srmw': did you mean srwm?"],
    "quick --algorithm imapla": ["unknown algorithm 'imapla': did you mean impala?"],
    "quick --mode memory --games bigfish --num-envs 64": ["'bigfish' has no memory mode"],
    "quick --num-envs 65": ["65 environments cannot be shared equally by 6 games: use 60 or 66"],
    "quick --agent.batch-unrolls 40": ["batch_unrolls must divide the number of unrolls", "40", "132"],
    "quick --algorithm ppo --agent.minibatches 4": [
        "minibatches must divide the number of environments",
        "4",
        "66",
    ],
    "quick --levels tset1": ["unknown levels 'tset1': did you mean test1"],
    "quick --reset sometimes": ["unknown reset rule 'sometimes'"],
    "quick --device tpu": ["unknown device 'tpu'"],
    "quick --game maze": ["unknown option '--game': did you mean --games?"],
    "quick --lerning-rate 1": ["unknown option '--lerning-rate': did you mean --agent.learning-rate or"],
    "quick --core.hidden 3": ["unknown option '--core.hidden'", "all options with policy srwm"],
    "quick --agent.minibatches 3": [
        "unknown option '--agent.minibatches'",
        "and algorithm appo: python train.py quick",
    ],
    "quick --num-envs many": ["num_envs is 'many': give a whole number"],
    "quick --num-envs 6.6": ["num_envs is '6.6': give a whole number"],
    "quick --num-envs": ["argument --num-envs: expected one argument"],
    "quick --encoder.channels 4 x": ["encoder.channels is [4, 'x']: give a list, each a whole number"],
    "quick --agent.discount nan": ["agent.discount is 'nan': give a number"],
    "quick --core.heads 7": ["core width 128 is not a multiple of its 7 heads"],
    "--resume": ["argument --resume: expected one argument"],
    "--resume runs/x --num-envs 4": [
        "only --total-steps, --on-nan and --processes may be given with it, not --num-envs"
    ],
    "quick --resume runs/x": ["only --total-steps, --on-nan and --processes may be given with it, not quick"],
    "--resume runs/x --total-steps x": ["total_steps is 'x': give a whole number"],
    "--resume runs/x --total-steps 0": ["total_steps is 0"],
    "--resume runs/x --learning-rate -1": ["learning_rate is -1"],
    "quik --games bigfsh --policy srmw --algorithm imapla --core.heads 3 --agent.x 1 --num-envs many --foo": [
        "6 problems: ",
        "unknown preset 'quik'",
        "unknown game 'bigfsh'",
        "unknown policy 'srmw'",
        "unknown algorithm 'imapla'",
        "num_envs is 'many'",
        "unknown option '--foo'",
    ],
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_clear_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse(line.split())
    message = str(raised.value)
    assert "\n" not in message
    for part in BAD[line]:
        assert part in message
    if not message.startswith("6 problems"):
        assert " problems: " not in message
    # tyro's own frames do not show.
    assert capfd.readouterr() == ("", "")


def test_an_existing_run_directory_is_listed_with_the_other_problems(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"2 problems: 65 environments .*; run directory .* exists: choose another"
    ):
        launch(f"quick --num-envs 65 --run-dir {tmp_path}")


def test_every_setting_has_a_description() -> None:
    """A field without a line in the docstring would be an option that nobody can understand."""
    for policy, algorithm in itertools.product(CORES, ALGORITHMS):
        for option in options(from_json({"policy": policy, "algorithm": algorithm})):
            assert option.description, option.name


class TestFiles:
    """Settings from a file."""

    def test_a_stored_configuration_gives_the_same_run(self, tmp_path: Path) -> None:
        config = launch("paper-memory4 --policy lstm --algorithm ppo --core.hidden 32 --seed 5").config
        path = tmp_path / "stored.json"
        path.write_text(json.dumps(to_json(config)))
        assert launch(f"--config {path}") == Launch("stored", config, None)
        assert launch(f"quick --config={path}").config == config

    def test_one_of_an_older_version_gives_it_too(self, tmp_path: Path) -> None:
        config = launch("learn").config
        stored = {name: value for name, value in to_json(config).items() if name not in ("start", "twist")}
        stored |= {"sequence": {**stored["sequence"], "start": None}, "blank": "4 of 8"}
        path = tmp_path / "stored.json"
        path.write_text(json.dumps(stored))
        assert launch(f"--config {path}").config == replace(config, twist="blank 4 of 8")

    def test_options_override_it_in_any_order(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('policy = "lstm"\nnum_envs = 60\nreset = 50\n[core]\nhidden = 16\nlayers = 2\n')
        for line in ("--config {} --core.hidden 8 --seed 1", "--core.hidden 8 --seed 1 --config {}"):
            config = launch("quick " + line.format(path)).config
            lstm = core_config("lstm", hidden=8, layers=2)
            light = EarlyPoolConfig()
            expected = PolicyConfig(lstm, light, reset="50", initial_weights="quiet-layers", bypass=True)
            assert config.policy == expected
            assert (config.num_envs, config.seed, config.videos) == (60, 1, True)
        assert launch(f"quick --policy srwm --config {path}").config.policy.core == SrwmConfig()

    @pytest.mark.parametrize(
        ("name", "text", "part"),
        [
            ("a.toml", "num_envs = ", "cannot be used: not TOML"),
            ("a.json", "{", "cannot be used: not JSON"),
            ("a.json", "[]", "the configuration is []: give an object"),
            ("a.toml", "num_env = 66", "unknown setting 'num_env': did you mean num_envs?"),
            ("a.toml", 'num_envs = "many"', "num_envs is 'many': give a whole number"),
            ("a.toml", "num_envs = 65", "65 environments cannot be shared equally"),
            ("none.toml", None, "cannot be read: No such file or directory"),
        ],
    )
    def test_what_is_wrong_with_it_is_one_line(
        self, name: str, text: str | None, part: str, tmp_path: Path
    ) -> None:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as raised:
            launch(f"quick --config {tmp_path / name}")
        assert part in str(raised.value)
        assert "\n" not in str(raised.value)
