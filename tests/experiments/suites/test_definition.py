"""What a suite's file may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from experiments.suites import definition
from experiments.suites.definition import Suite, Variant, find, read, shipped
from experiments.suites.plan import Options, make_plan


def suite(text: str, folder: Path, name: str = "mine") -> Suite:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return read(path)


def test_the_suites_that_ship() -> None:
    paper = {"paper-easy6", "paper-memory4", "paper-ablation", "paper-experts"}
    sequences = ("procgen", "told", "cores", "memory", "levels", "expert", "two-levels")
    continual = {f"continual-{name}" for name in sequences}
    processor = {"easy6-processor", "easy6-experts", "light-encoders"}
    assert set(shipped()) == paper | processor | continual | {"memory-cue", "memory-games"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_suite_can_be_planned(name: str) -> None:
    plan = make_plan(read(find(name)))
    assert plan.suite.summary
    assert len({run.name for run in plan.runs}) == len(plan.runs) >= 6
    assert all(not run.config.videos for run in plan.runs)


@pytest.mark.parametrize("name", ["continual-procgen", "continual-levels"])
def test_a_rehearsal_of_a_sequence_has_all_its_stages(name: str) -> None:
    suite = read(find(name))
    whole, part = (make_plan(suite, Options(scale=scale, seeds=(0,))).runs for scale in (1.0, 0.001))
    for one, other in zip(whole, part, strict=True):
        assert other.config.problems() == []
        assert len(one.config.plan.stages) == len(other.config.plan.stages)
        assert other.config.total_steps < one.config.total_steps / 100
        assert other.config.sequence.joint == one.config.sequence.joint


def groups(name: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for run in make_plan(read(find(name))).runs:
        found.setdefault(run.group, []).append(run.config.seed)
    return found


def test_the_multi_task_suites_are_those_of_the_paper() -> None:
    policies = {"feedforward", "lstm", "deltanet", "fake_srwm", "srwm"}
    assert set(groups("paper-easy6")) == policies
    assert all(seeds == [0, 1, 2] for seeds in groups("paper-easy6").values())
    assert set(groups("paper-memory4")) == {*policies, "sr_delta"}
    (easy, memory) = (make_plan(read(find(name))).runs[0].config for name in ("paper-easy6", "paper-memory4"))
    assert easy.games == ("bigfish", "fruitbot", "maze", "leaper", "plunder", "starpilot")
    assert (easy.mode, easy.levels, easy.total_steps) == ("easy", "train", 300_000_000)
    assert memory.games == ("dodgeball", "heist", "maze", "miner")
    assert (memory.mode, memory.total_steps, memory.evaluation_episodes) == ("memory", 300_000_000, 200)


def test_the_ablations_change_what_they_say_and_nothing_else() -> None:
    plan = make_plan(read(find("paper-ablation")))
    first = {run.group: run.config for run in plan.runs if run.config.seed == 0}
    changed = {name: (config.policy.reset, config.policy.bptt_span) for name, config in first.items()}
    assert changed == {
        "srwm": ("episode", None),
        "reset-50": ("50", None),
        "reset-never": ("never", None),
        "horizon-1": ("episode", 1),
        "horizon-10": ("episode", 10),
        "horizon-50": ("episode", 50),
    }
    (item,) = plan.reevaluations
    assert (item.group, item.of, item.reset) == ("reset-50-in-evaluation", "srwm", "50")
    assert plan.suite.full_model == "srwm"


def test_experts_play_one_game_each() -> None:
    runs = make_plan(read(find("paper-experts"))).runs
    assert {(run.config.games, run.config.policy_name) for run in runs} == {
        ((game,), policy) for game in ("bigfish", "starpilot") for policy in ("srwm", "fake_srwm")
    }
    assert {run.config.total_steps for run in runs} == {50_000_000}


def test_the_agents_for_processors_differ_in_their_core_alone_and_experts_play_as_much_of_a_game() -> None:
    together, experts = (make_plan(read(find(f"easy6-{name}"))).runs for name in ("processor", "experts"))
    assert {run.config.policy_name for run in together} == {"srwm_sharp", "feedforward", "lstm"}
    for run in (*together, *experts):
        alike = replace(run.config.policy, core=together[0].config.policy.core)
        assert alike == together[0].config.policy
        assert run.config.agent == together[0].config.agent
    (games,) = {run.config.games for run in together}
    (steps,) = {run.config.total_steps for run in together}
    assert {run.config.games for run in experts} == {(game,) for game in games}
    assert {run.config.total_steps for run in experts} == {334_000}
    assert 0 <= 334_000 - steps / len(games) < 1_000


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    found = suite(
        """
        summary = "mine"
        preset = "quick"
        seeds = [7, 8]
        full_model = "lstm-slow"
        [settings]
        videos = false
        games = ["maze", "heist"]
        agent.learning_rate = 1e-3
        [settings.core]
        hidden = 32
        [grid]
        policy = ["lstm"]
        agent.entropy_cost = [0.01, 0.02]
        games = ["maze", ["heist", "miner"]]
        [[variant]]
        name = "slow"
        label = "Slow"
        settings = { agent.discount = 0.9 }
        """,
        tmp_path,
    )
    assert found == Suite(
        name="mine",
        summary="mine",
        preset="quick",
        seeds=(7, 8),
        settings={
            "videos": False,
            "games": ("maze", "heist"),
            "agent.learning_rate": 1e-3,
            "core.hidden": 32,
        },
        grid={"policy": ("lstm",), "agent.entropy_cost": (0.01, 0.02), "games": ("maze", ("heist", "miner"))},
        variants=(Variant("slow", "Slow", settings={"agent.discount": 0.9}),),
        full_model="lstm-slow",
    )


MINIMAL = 'preset = "quick"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["preset is missing"]),
        ("preset = 3", ["preset is 3: give a text"]),
        ("preset = ", ["cannot be used: not TOML"]),
        (
            'preset = "quik"\nsedes = [1]',
            ["unknown preset 'quik': did you mean quick?", "unknown key 'sedes'"],
        ),
        (MINIMAL + "seeds = []", ["seeds is []"]),
        (MINIMAL + "seeds = [1, 1]", ["give different whole numbers"]),
        (MINIMAL + "seeds = [true]", ["seeds is [True]: give a list, each a whole number"]),
        (MINIMAL + 'grid.policy = "srwm"', ["grid.policy is 'srwm': give a list"]),
        (MINIMAL + "grid.policy = []", ["grid.policy is ()"]),
        (MINIMAL + 'grid.policy = ["srwm", "srwm"]', ["grid.policy lists a value twice"]),
        (MINIMAL + "grid.seed = [1]", ["list seeds as seeds"]),
        (MINIMAL + "settings.num_envs = 1979-05-27", ["num_envs is datetime.date"]),
        (MINIMAL + 'variant = ["x"]', ["write [[variant]] above each"]),
        (MINIMAL + '[[variant]]\nlabel = "x"', ["variant 1: name is missing"]),
        (MINIMAL + '[[variant]]\nname = "a/b"', ["name 'a/b': use letters"]),
        (MINIMAL + '[[variant]]\nname = "a"\nseting = 1', ["variant a: unknown key 'seting'"]),
        (MINIMAL + '[[variant]]\nname = "a"\n[[variant]]\nname = "a"', ["'a' is listed more than once"]),
        (MINIMAL + '[[variant]]\nname = "a"\nprogram = "b"', ["variant a: unknown key 'program'"]),
        (MINIMAL + "settings = 3", ["settings is 3: give a table"]),
        (MINIMAL + '[[variant]]\nname = "a"\nreset = "50"', ["gives reset without evaluates"]),
        (
            MINIMAL + '[[variant]]\nname = "a"\nevaluates = "b"\nreset = "5"',
            ["unknown variant to evaluate 'b'"],
        ),
        (
            MINIMAL + '[[variant]]\nname = "b"\n[[variant]]\nname = "a"\nevaluates = "b"\nreset = "often"',
            ["variant 'a': unknown reset rule 'often'"],
        ),
        (
            MINIMAL
            + '[[variant]]\nname = "b"\n'
            + '[[variant]]\nname = "a"\nevaluates = "b"\nreset = "5"\nsettings = { num_envs = 3 }',
            ["variant 'a' trains nothing"],
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(text: str, parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        suite(text, tmp_path)
    for part in [*parts, "mine.toml"]:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_where_suites_are_looked_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(MINIMAL)
    assert find(str(mine)) == mine
    assert find("paper-easy6").parent == definition.SHIPPED
    for name, part in (
        ("paper-esy6", "unknown suite 'paper-esy6': did you mean paper-easy6"),
        (str(tmp_path), f"name one suite file, {mine}"),
        (str(tmp_path / "other.toml"), "does not exist"),
    ):
        with pytest.raises(UserError, match=part.replace("?", r"\?")):
            find(name)
    mine.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="it is not text"):
        read(mine)
