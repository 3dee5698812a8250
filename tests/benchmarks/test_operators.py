"""What is compared is the same function, and each figure is a ratio within one run. Never how large it is."""

from __future__ import annotations

import pytest
import torch

from benchmarks import operators
from benchmarks.figures import Figure, Part
from benchmarks.operators import (
    MEASURED,
    REFERENCE,
    Case,
    Shape,
    compare,
    compare_cores,
    make_case,
    make_cores,
    versions,
)
from policies.cores.srwm import SrwmConfig
from policies.cores.srwm_sharp import SrwmSharpConfig
from policies.ops import OPERATORS

TINY = Shape(7, 3, 2, 4)


@pytest.mark.parametrize("operator", MEASURED)
@pytest.mark.parametrize("shape", [TINY, TINY._replace(steps=1)], ids=str)
def test_what_is_compared_agrees(operator: str, shape: Shape) -> None:
    case = make_case(operator, shape, dtype=torch.float64, resets=0.2)
    for backward in (False, True):
        expected = case.run("naive", backward)
        assert len(expected) == 2 + backward * len(case.sources)
        for name in versions(operator, shape, "cpu"):
            for got, wanted in zip(case.run(name, backward), expected, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", MEASURED)
def test_single_steps_are_a_call_each(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(operator, TINY)
    implementations = OPERATORS[operator].versions
    real, steps = implementations["naive"], []

    def call(*args: torch.Tensor) -> object:
        steps.append(len(args[0]))
        return real(*args)

    monkeypatch.setitem(implementations, "naive", call)
    for backward in (False, True):
        case.run_by_single_steps("naive", backward)
    assert steps == [1] * 2 * TINY.steps


@pytest.mark.parametrize("operator", MEASURED)
def test_every_version_gets_a_ratio_to_the_plain_loop(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, bool]] = []
    monkeypatch.setattr(Case, "run", lambda self, name, backward: ran.append((name, backward)))
    names = versions(operator, TINY, "cpu")
    monkeypatch.setattr(operators, "best_seconds", lambda parts, _: _times(parts))
    figures = compare(operator, TINY, True, "cpu", 3)
    assert [figure.ratio for figure in figures] == [1.0 / 2**index for index in range(1, len(names) + 1)]
    assert ran == [(name, True) for name in ("naive", *names)]
    assert sum("(auto)" in figure.name for figure in figures) == 1
    assert all(figure.aim is None for figure in figures)
    (short,) = compare(operator, TINY, True, "cpu", 3, quick=True)
    assert short.name == next(figure.name for figure in figures if "(auto)" in figure.name)
    assert set(short.facts) == {"naive ms", f"{short.name.split(': ')[1].split()[0]} ms"}
    aims = [figure.aim for figure in compare(operator, REFERENCE, True, "cpu", 3)]
    assert [aim for aim in aims if aim] == [{"srwm": 2.0, "deltanet": 5.0}[operator]]


@pytest.mark.parametrize("shape", [TINY, TINY._replace(steps=1)], ids=str)
def test_cores_with_options_get_a_ratio_to_the_published_one(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "best_seconds", lambda parts, *_: _times(parts))
    figures = compare_cores(shape, shape.steps > 1, 3)
    assert [figure.ratio for figure in figures] == [0.5, 0.25]
    assert [figure.aim for figure in figures] == [0.97, None]
    configurations = [type(core).config_class for core in make_cores(shape).values()]
    assert configurations == [SrwmConfig, SrwmSharpConfig, SrwmSharpConfig]


def _times(parts: dict[str, object]) -> dict[str, float]:
    """Calls each part once, and says that the n-th took 2^n seconds."""
    for part in parts.values():
        part()  # type: ignore[operator]
    return {name: 2.0**index for index, name in enumerate(parts)}


def test_the_short_version_covers_sequences_and_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Shape, bool]] = []

    def run(parts: list[Part]) -> None:
        for part in parts:
            part.run()

    def note(
        operator: str, shape: Shape, backward: bool, device: str, repetitions: int, quick: bool
    ) -> list[Figure]:
        asked.append((operator, shape, backward))
        return []

    monkeypatch.setattr(operators, "compare", note)
    cores: list[Shape] = []
    monkeypatch.setattr(operators, "compare_cores", lambda shape, backward, repetitions: cores.append(shape))
    run(operators.parts(quick=True))
    assert {(operator, REFERENCE, True) for operator in MEASURED} <= set(asked)
    assert any(shape.steps == 1 and not backward for _, shape, backward in asked)
    assert [shape.steps for shape in cores] == [50, 1]
    short = len(asked)
    asked.clear()
    run(operators.parts())
    assert len(asked) > short
