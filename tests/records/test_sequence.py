"""Where stages begin and end, and what contradicts a sequence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from envs import Task
from records.config import TrainConfig, from_json, to_json
from records.continual import BETWEEN, BOUNDARY, ContinualLog, Measurement
from records.directory import RunDirectory
from records.selection import find_checkpoint
from records.sequence import Plan, SequenceConfig

TASKS = tuple(map(Task, ("bigfish", "maze", "miner")))


def sequence(**changes: object) -> TrainConfig:
    settings = {"steps_per_task": 40_000, **changes.pop("sequence", {})}  # type: ignore[dict-item]
    return from_json({"games": ["bigfish", "maze"], "num_envs": 64, "sequence": settings, **changes})


plans = st.builds(
    lambda rollout, stage, first, cycles, tasks: Plan(
        SequenceConfig(
            steps_per_task=rollout + stage,
            cycles=cycles,
            first_stage_steps=None if first is None else rollout + first,
            evaluate_every_steps=3 * rollout,
        ),
        TASKS[:tasks],
        rollout,
    ),
    st.integers(1, 500),
    st.integers(0, 5000),
    st.none() | st.integers(0, 5000),
    st.integers(1, 4),
    st.integers(1, 3),
)


@given(plans)
def test_stages_follow_one_another_without_drift(plan: Plan) -> None:
    stages = plan.stages
    assert len(stages) == plan.config.cycles * len(plan.tasks)
    assert stages[0].begin == 0
    assert stages[-1].end == plan.config.total_steps(len(plan.tasks))
    for place, stage in enumerate(stages):
        assert (stage.number, stage.task) == (place + 1, plan.tasks[place % len(plan.tasks)])
        assert stage.cycle == place // len(plan.tasks) + 1
        if place:
            assert stage.begin == stages[place - 1].end
            assert stage.steps == plan.config.steps_per_task
        # The first end of a rollout that is not before the planned one.
        end = plan.at_rollout_end(stage.end)
        assert end % plan.steps_per_rollout == 0
        assert 0 <= end - stage.end < plan.steps_per_rollout
    assert len(plan.boundaries()) == len(stages)  # no stage is shorter than a rollout


@given(plans)
def test_each_rollout_belongs_to_one_stage(plan: Plan) -> None:
    ends = [plan.at_rollout_end(stage.end) for stage in plan.stages]
    begin = 0
    for stage, end in zip(plan.stages, ends, strict=True):
        for step in {begin + plan.steps_per_rollout, end}:
            assert plan.stage_at(step) == stage
        begin = end
    assert plan.stage_at(0) == plan.stages[0]
    assert plan.stage_at(10**9) == plan.stages[-1]


@given(plans)
def test_evaluations_within_a_stage_come_soon_after_a_switch_and_then_regularly(plan: Plan) -> None:
    rollout = plan.steps_per_rollout
    begin = 0
    for stage in plan.stages[:3]:
        end = plan.at_rollout_end(stage.end)
        times = [step for step in range(begin, end + 1, rollout) if plan.evaluates_at(step)]
        assert begin not in times
        assert end not in times
        for percent in (1, 2):
            early = begin + -(-stage.steps * percent // (100 * rollout)) * rollout
            assert early in times or early >= end
        regular = {begin + number for number in range(3 * rollout, end - begin, 3 * rollout)}
        assert regular <= set(times)
        begin = end


def test_a_plan_without_evaluations_in_between() -> None:
    plan = Plan(SequenceConfig(steps_per_task=1000), TASKS, 100)
    assert not any(plan.evaluates_at(step) for step in range(0, 3001, 100))


def test_games_and_steps_follow_from_the_sequence() -> None:
    config = sequence(sequence={"cycles": 3, "first_stage_steps": 10_000})
    assert (config.total_steps, config.problems()) == (210_000, [])
    assert config.tasks == (Task("bigfish"), Task("maze"))
    levels = sequence(games=["climber"], sequence={"tasks": ["climber/easy/3:4", "climber/easy/9:10"]})
    assert (levels.games, levels.total_steps, levels.problems()) == (("climber",), 80_000, [])
    for made in (config, levels):
        assert from_json(json.loads(json.dumps(to_json(made)))) == made


def test_all_environments_play_the_task_of_the_stage() -> None:
    assert sequence(num_envs=33, agent={"batch_unrolls": 33}).problems() == []
    joint = sequence(num_envs=33, agent={"batch_unrolls": 33}, sequence={"joint": True})
    assert "33 environments cannot be shared equally by 2 tasks: use 32 or 34" in joint.problems()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sequence": {"steps_per_task": 1000}}, "a stage of 1,000 steps is shorter than a rollout of 3,200"),
        ({"sequence": {"first_stage_steps": 1000}}, "a stage of 1,000 steps is shorter than a rollout"),
        ({"total_steps": 70_000}, "total_steps is 70,000, but the sequence's 2 stages have 80,000 steps"),
        (
            {"sequence": {"tasks": ["mze"]}},
            "sequence.tasks: task mze: unknown game 'mze': did you mean maze?",
        ),
        ({"games": ["maze"], "sequence": {"tasks": ["maze", "maze"]}}, "lists maze more than once"),
        ({"sequence": {"evaluation_splits": []}}, "no sequence.evaluation_splits"),
        (
            {"sequence": {"evaluation_splits": ["test9"]}},
            "sequence.evaluation_splits: unknown levels 'test9'",
        ),
        ({"sequence": {"cycles": 0}}, "sequence.cycles is 0: give 1 or more"),
        ({"sequence": {"joint": True}, "tasks": {"id": "told"}}, "sequence.joint plays all tasks at once"),
        (
            {"sequence": {"carry_state": True}, "tasks": {"id": "told", "cores": "per-task"}},
            "sequence.carry_state hands a core's memory on",
        ),
        ({"games": []}, "no games"),
        ({"tasks": {"id": "told", "count": 1}}, "tasks.count is 1, but the sequence has 2 tasks"),
    ],
)
def test_contradictions_are_one_line(changes: dict[str, object], expected: str) -> None:
    assert any(expected in problem for problem in sequence(**changes).problems())


def test_games_that_are_not_those_of_the_tasks() -> None:
    with pytest.raises(UserError, match=r"games are bigfish, maze, but sequence\.tasks play climber"):
        sequence(sequence={"tasks": ["climber"]})


def test_settings_of_a_sequence_without_one() -> None:
    config = replace(TrainConfig(), sequence=SequenceConfig(cycles=2, joint=True))
    assert config.problems() == [
        f"sequence.{name} is given, but there is no sequence: give sequence.steps_per_task"
        for name in ("cycles", "joint")
    ]


@pytest.mark.parametrize("data", [{}, {"sequence": {"steps_per_task": 40_000, "joint": True}}])
def test_a_method_that_waits_for_changes_that_never_come(data: dict[str, object]) -> None:
    def problems(**changes: object) -> list[str]:
        return from_json({"games": ["bigfish", "maze"], "num_envs": 64, **data, **changes}).problems()

    expected = "retention ewc acts where the task changes, which it never does here"
    assert any(line.startswith(expected) for line in problems(retention="ewc"))
    assert problems(retention="ewc", retain={"every": 10_000}) == []
    assert problems(retention="clear") == []


# What is measured


def measurement(step: int, kind: str = BOUNDARY) -> Measurement:
    return Measurement(step, 1, kind, "maze", "train", (1.5, -0.1 - step), 30)


def test_measurements_are_read_back_and_cut(tmp_path: Path) -> None:
    log = ContinualLog(tmp_path / "continual.jsonl")
    assert log.read() == []
    assert log.keep(lambda one: True) == []
    assert not log.path.exists()
    made = [measurement(0), measurement(100, BETWEEN), measurement(200)]
    log.append(made[:1])
    log.append(made[1:])
    assert log.read() == made
    before = log.path.read_bytes()
    assert log.keep(lambda one: True) == made
    assert log.path.read_bytes() == before
    assert log.keep(lambda one: one.step <= 100) == made[:2]
    assert log.read() == made[:2]


@pytest.mark.parametrize(
    "end", [b'{"step": 3', b"null\n", b'{"step": 1}\n', b"\xff\xfe\n", b'{"step": 300, "sta']
)
def test_a_damaged_end_is_left_out_and_cut_off(end: bytes, tmp_path: Path) -> None:
    log = ContinualLog(tmp_path / "continual.jsonl")
    log.append([measurement(0), measurement(100)])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + end)
    assert len(log.read()) == 2
    log.keep(lambda one: True)
    assert log.path.read_bytes() == whole


# Names of checkpoints


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.create(sequence(), ["made up"])
    for step in (20_800, 41_600, 80_000):
        found.checkpoint_at(step).touch()
    return found


def test_times_in_a_run(run: RunDirectory) -> None:
    assert find_checkpoint(run.path) == run.checkpoint_at(80_000)
    # 13 rollouts of 3,200 steps are the first that make 40,000.
    assert find_checkpoint(f"{run}@stage1") == run.checkpoint_at(41_600)
    assert find_checkpoint(f"{run}/@stage2") == run.checkpoint_at(80_000)
    assert find_checkpoint(f"{run}@20800") == run.checkpoint_at(20_800)
    (run.checkpoints / "best.ckpt").symlink_to("step_000000020800.ckpt")
    assert find_checkpoint(f"{run}@best") == run.checkpoints / "best.ckpt"


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("stage3", "has no stage 3: its stages are 1 to 2"),
        ("stage0", "has no stage 0: its stages are 1 to 2"),
        ("41601", "has no checkpoint of step 41601 (41601): there are 20800, 41600, 80000"),
        ("best", "has no best checkpoint"),
        ("later", "names no time: write @stage1, @best, or a number of environment steps"),
    ],
)
def test_times_that_a_run_does_not_have(when: str, message: str, run: RunDirectory) -> None:
    with pytest.raises(UserError) as caught:
        find_checkpoint(f"{run}@{when}")
    assert message in str(caught.value)


def test_a_stage_whose_checkpoint_is_gone(run: RunDirectory) -> None:
    run.checkpoint_at(41_600).unlink()
    with pytest.raises(UserError, match=r"has no checkpoint of step 41600 \(stage1\)"):
        find_checkpoint(f"{run}@stage1")


def test_a_run_without_stages(tmp_path: Path) -> None:
    plain = RunDirectory(tmp_path / "plain")
    plain.create(from_json({"games": ["maze"], "num_envs": 4}), ["made up"])
    plain.checkpoint_at(100).touch()
    with pytest.raises(UserError, match="has no stages"):
        find_checkpoint(f"{plain}@stage1")
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoint(f"{tmp_path}/nothing@stage1")


def test_a_path_that_has_the_sign_in_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine@home.ckpt"
    file.touch()
    assert find_checkpoint(file) == file
