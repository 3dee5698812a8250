"""Benchmarks measure what they say; how fast it is, is not tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import stable_baselines3

from benchmarks import __main__, environment, first_step, memory, network, peers, training
from benchmarks.figures import Figure, Part
from envs.native import IMAGE_SHAPE
from policies import CORES, ENCODERS, ImpalaEncoderConfig, Policy, policy_config
from policies.encoders.impala import ImpalaEncoder
from policies.initial_weights import INITIAL_WEIGHTS

Calls = dict[str, int]


@pytest.fixture
def one_second_each(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Every part of a benchmark runs once, and is said to take a second; how many parts each one had."""
    seen: Calls = {}

    def best_seconds(parts: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
        for name, part in parts.items():
            part()
            seen[name] = seen.get(name, 0) + 1
        return dict.fromkeys(parts, 1.0)

    for module in (environment, network, training):
        monkeypatch.setattr(module, "best_seconds", best_seconds)
    return seen


def measure(parts: Sequence[Part]) -> list[Figure]:
    return [figure for part in parts for figure in part.run()]


def test_operations_are_those_of_the_layers() -> None:
    """Counted by hooks on the real network, layer by layer."""
    encoder = ImpalaEncoder(ImpalaEncoderConfig(), IMAGE_SHAPE)
    counted = 0.0
    side, sides = 64, []
    for channels in (16, 32, 32):
        sides.append((side, channels))
        side //= 2
    for section, (size, outputs) in zip(encoder.sections, sides, strict=True):
        for name, weight in section.named_parameters():
            if name.endswith("weight"):
                resolution = size if name == "conv.weight" else size // 2
                counted += 2.0 * resolution**2 * weight.numel()
                assert weight.shape[0] == outputs
    counted += 2.0 * encoder.linear.weight.numel()
    forward, both = network.operations(ImpalaEncoderConfig())
    assert forward == counted
    assert forward == pytest.approx(61e6, rel=0.01)
    assert both == pytest.approx(180e6, rel=0.01)


def test_light_encoders_are_compared_with_the_published_one(one_second_each: Calls) -> None:
    figures = measure(network.parts(quick=True)[1:])
    labels = {"published", *network.light_encoders()}
    assert len(figures) == len(labels) > len(ENCODERS)
    assert one_second_each == {f"{label} {what}": 1 for label in labels for what in ("forward", "both")}
    for figure in figures:
        assert figure.ratio == 1.0
        assert figure.facts["frames/s forward"] == 64.0
        assert figure.facts["frames/s forward and backward"] == 816.0


def test_the_environment_is_compared_with_the_bare_one(one_second_each: Calls) -> None:
    (figure,) = measure(environment.parts(quick=True))
    assert figure.ratio == 1.0
    assert figure.facts == {"ours steps/s": 6600.0, "bare steps/s": 6600.0}
    assert one_second_each == {"ours": 1, "bare": 1}


def test_training_is_compared_with_its_parts(one_second_each: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "NUM_ENVS", 12)
    case = training.Case
    monkeypatch.setattr(
        training, "Case", lambda *names, **options: case(*names, **{"num_envs": 12, **options})
    )
    make = training.IMPALA
    monkeypatch.setattr(
        training, "IMPALA", lambda *words, **options: make(*words, **options, rollout_steps=2)
    )
    figures = {(figure.name, figure.against): figure for figure in measure(training.parts(quick=True))}
    # Each part takes a second, so acting and learning by themselves allow half of what training reaches.
    name = "IMPALA, srwm: training, steps/s"
    assert figures[name, "what acting and learning by themselves allow"].ratio == pytest.approx(2.0)
    assert figures[name, "feedforward"].facts == {"srwm": 24.0, "feedforward": 24.0}
    assert figures["acting with environments in two groups", "in one"].ratio == 1.0
    assert ("IMPALA, deltanet: training, steps/s", "feedforward") in figures
    assert {"acting", "in two groups", "learning", "training"} <= one_second_each.keys()


def test_peers_have_the_network_of_ours() -> None:
    policy = Policy(policy_config("feedforward"), IMAGE_SHAPE, 15)
    agent = peers._peer(peers.Size(2, 1), stable_baselines3.PPO)
    ours, theirs = (sum(p.numel() for p in module.parameters()) for module in (policy, agent.policy))
    assert ours == theirs
    agent.env.close()


def test_peers_and_ours_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "NUM_ENVS", 6)
    for name in ("stable-baselines3 PPO", "sb3-contrib RecurrentPPO", "PPO feedforward", "IMPALA srwm"):
        result = peers.train(name, peers.Size(2, 1), 1, keep_buffers=False)
        assert result["steps/s"] > 0
        assert 0.1 < result["peak GB"] < 20


@pytest.mark.parametrize("quick", [True, False])
def test_ours_are_divided_by_their_peers(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {name: float(10 * (2 + number)) for number, name in enumerate(peers.AGENTS)}
    asked: list[tuple[str, bool]] = []

    def in_a_process(name: str, size: peers.Size, rollouts: int, keep_buffers: bool) -> dict[str, float]:
        asked.append((name, keep_buffers))
        return {"steps/s": rates[name] if keep_buffers else 1.0, "peak GB": rates[name] / 10}

    monkeypatch.setattr(peers, "_in_a_process", in_a_process)
    parts = peers.parts(quick)
    figures = [part.run() for part in parts]
    # As soon as both have trained: nothing after the peers, a pair of figures after each of ours.
    assert [len(some) for some in figures] == [0] * (2 if quick else 3) + [2] * 4
    (speed, memory), _, _, (impala, _) = figures[-4:]
    assert (speed.name, speed.against) == ("PPO feedforward: training, steps/s", "stable-baselines3 PPO")
    assert speed.ratio == 2.0
    assert impala.ratio == 3.5
    assert memory.ratio == 2.0
    assert memory.reached is False
    assert ("stable-baselines3 PPO, as shipped" in speed.facts) is not quick
    assert len(asked) == len(rates) + (0 if quick else 1)


def test_memory_is_figured_when_all_sizes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory, "_in_a_process", lambda num_envs, steps: 1.0 + num_envs * steps * 24_576 / 1e9
    )
    figures = [part.run() for part in memory.parts(quick=True)]
    assert [len(some) for some in figures] == [0, 0, 2]
    growth, frame = figures[-1]
    assert growth.ratio == pytest.approx(1.0)
    assert frame.ratio == pytest.approx(2.0)


def test_the_benchmark_of_everything_has_every_part() -> None:
    names = [part.name for part in __main__.parts()]
    assert len(set(names)) == len(names) > 15
    assert {name.partition(":")[0] for name in names} == set(__main__.MODULES)


def test_first_steps_of_a_plain_network_are_the_measure_of_others() -> None:
    (part,) = first_step.parts(quick=True)
    figures = {figure.name: figure for figure in part.run()}
    assert len(figures) == len(CORES) * len(INITIAL_WEIGHTS)
    assert figures["feedforward, initial weights torch"].ratio == 1.0
    sharp = [
        figures[f"srwm_sharp, initial weights {name}"].facts["nats"] for name in ("torch", "small-heads")
    ]
    assert sharp[1] < 0.02 < sharp[0]
