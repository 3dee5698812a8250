"""Memory tasks can be solved from the past, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from experiments.memory.settings import Cell
from experiments.memory.tasks import ANSWERS, FEATURES, TASKS, Batch
from experiments.memory.tasks.associative_recall import LETTERS
from experiments.memory.tasks.base import NOISE, QUESTION
from experiments.memory.tasks.binding import VECTOR
from experiments.memory.tasks.rule_change import STIMULI
from experiments.memory.training import train
from policies import core_config

# Steps of an episode for a length; other tasks in the registry are somebody else's.
STEPS: dict[str, Callable[[int], int]] = {
    "cue": lambda length: length + 9,
    "binding": lambda length: 2 * length,
    "copy": lambda length: 2 * length,
    "recall": lambda length: 3 * length,
    "rule": lambda length: length,
}


def drawn(name: str, streams: int = 40, seed: int = 5, stretch: int = 1) -> Batch:
    task = TASKS[name]
    return task.draw(torch.Generator().manual_seed(seed), streams, stretch * task.length)


def best(features: np.ndarray, first: int, count: int) -> int:
    return int(features[first : first + count].argmax())


# Solutions: what somebody answers at each step of one stream (T, 64) who remembers all of it.


def cue(x: np.ndarray) -> Iterator[int]:
    yield from (best(x[0], 0, ANSWERS) for _ in x)


def binding(x: np.ndarray) -> Iterator[int]:
    pairs: list[tuple[np.ndarray, int]] = []
    for step in x:
        if step[QUESTION] < 0.75:
            pairs.append((step[:VECTOR], best(step, VECTOR, ANSWERS)))
        yield min(pairs, key=lambda pair: float(((pair[0] - step[:VECTOR]) ** 2).sum()))[1]


def copy(x: np.ndarray) -> Iterator[int]:
    yield from (best(x[time - len(x) // 2], 0, ANSWERS) for time in range(len(x)))


def recall(x: np.ndarray) -> Iterator[int]:
    lessons = {best(x[t], 0, LETTERS): best(x[t + 1], LETTERS, ANSWERS) for t in range(0, 2 * len(x) // 3, 2)}
    yield from (lessons.get(best(step, 0, LETTERS), 0) for step in x)


def rule(x: np.ndarray) -> Iterator[int]:
    told: dict[int, int] = {}
    for step in x:
        if step[2 * STIMULI :][:ANSWERS].max() > 0.75:
            told[best(step, STIMULI, STIMULI)] = best(step, 2 * STIMULI, ANSWERS)
        yield told.get(best(step, 0, STIMULI), 0)


SOLUTIONS = {"cue": cue, "binding": binding, "copy": copy, "recall": recall, "rule": rule}


@pytest.mark.parametrize("stretch", [1, 2])
@pytest.mark.parametrize("name", TASKS)
def test_batches_have_the_shapes_that_they_promise(name: str, stretch: int) -> None:
    batch = drawn(name, stretch=stretch)
    steps = STEPS[name.partition("-")[0]](stretch * TASKS[name].length)
    assert batch.x.shape == (steps, 40, FEATURES)
    assert batch.episode_start.shape == batch.target.shape == batch.asked.shape == (steps, 40)
    assert batch.episode_start[0].all()
    assert not batch.episode_start[1:].any()
    assert batch.asked.any(dim=0).all()
    assert 0 <= batch.target.min() <= batch.target.max() < ANSWERS


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_decides_the_batch(name: str) -> None:
    one, same, other = drawn(name), drawn(name), drawn(name, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.x, other.x)


@pytest.mark.parametrize("stretch", [1, 2])
@pytest.mark.parametrize("name", TASKS)
def test_who_remembers_everything_is_right(name: str, stretch: int) -> None:
    batch, right = drawn(name, stretch=stretch), []
    for stream in range(batch.x.shape[1]):
        answers = torch.tensor(list(SOLUTIONS[name.partition("-")[0]](batch.x[:, stream].numpy())))
        asked = batch.asked[:, stream]
        right += (answers == batch.target[:, stream])[asked].tolist()
    # The noise hides about one symbol in a thousand.
    assert np.mean(right) > 0.98


@pytest.mark.parametrize("name", TASKS)
def test_who_remembers_nothing_guesses(name: str) -> None:
    cell = Cell(task=name, core=core_config("feedforward"), updates=40, streams=100, learning_rate=1e-2)
    outcome = train(cell)
    assert outcome.test == pytest.approx(1 / ANSWERS, abs=0.05)


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_equally_frequent(name: str) -> None:
    batch = drawn(name, streams=3000)
    shares = torch.bincount(batch.target[batch.asked], minlength=ANSWERS) / batch.asked.sum()
    assert shares.tolist() == pytest.approx([1 / ANSWERS] * ANSWERS, abs=0.03)


@pytest.mark.parametrize("name", ["cue-15", "binding", "copy", "recall"])
def test_noise_is_on_every_feature_and_questions_are_raised_where_one_is_asked(name: str) -> None:
    batch = drawn(name, streams=200)
    assert batch.x.std(dim=(0, 1)).min() > 0.9 * NOISE
    assert batch.x[..., QUESTION][batch.asked].mean() > 1
    assert abs(batch.x[..., QUESTION][~batch.asked].mean()) < 0.05


def test_nothing_tells_that_the_rule_has_changed() -> None:
    batch = drawn("rule-change", streams=3000)
    signal = batch.x.mean(dim=1)
    places = slice(2 * STIMULI + ANSWERS, None)
    assert signal[:, places].abs().max() < 0.05
    assert batch.asked.float().mean(dim=1)[0] == 0  # nothing has been told yet


def test_a_stimulus_gets_another_answer_once_in_each_episode() -> None:
    batch = drawn("rule-change", streams=50, stretch=4)
    stimuli = batch.x[..., :STIMULI].argmax(-1)
    assert (stimuli[1:] != stimuli[:-1]).float().mean() > 0.98
    for stream in range(50):
        for stimulus in range(STIMULI):
            answers = batch.target[:, stream][stimuli[:, stream] == stimulus]
            changes = int((answers[1:] != answers[:-1]).sum())
            assert changes >= 1
            assert len(set(answers.tolist())) >= 2


def test_more_letters_than_there_are_cannot_be_recalled() -> None:
    with pytest.raises(ValueError, match="17 letters are asked for, there are 16"):
        TASKS["recall"].draw(torch.Generator(), 1, 17)
