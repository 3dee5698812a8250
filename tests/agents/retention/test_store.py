"""The reservoir of unrolls: what is kept, where, and what is left when a process is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from agents.learner import Learner
from agents.retention import store as store_module
from agents.retention.clear import SEQUENCES
from agents.retention.store import SEGMENT_ROWS, UnrollStore
from agents.retention.unrolls import Segment
from agents.rollout import Batch

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., Batch]
CPU = torch.device("cpu")


def numbered(first: int, count: int, steps: int = 2) -> Batch:
    """Unrolls whose every number is that of the unroll."""
    numbers = torch.arange(first, first + count)

    def filled(length: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return numbers.reshape(1, -1, *[1] * len(shape)).expand(length, -1, *shape).to(dtype)

    return Batch(
        rgb=filled(steps + 1, 2, 3, 3, dtype=torch.uint8),
        reward_input=filled(steps + 1, 1),
        episode_start=filled(steps + 1, dtype=torch.bool),
        actions=filled(steps, dtype=torch.int64),
        log_probs=filled(steps),
        values=filled(steps),
        rewards=filled(steps),
        dones=filled(steps, dtype=torch.bool),
        initial_state={"layer0/shift": filled(1, 2, 2)[0], "age": numbers},
        final_state={},
        logits=filled(steps, 4),
    )


def offer(store: UnrollStore, batch: Batch) -> None:
    store_module.offer(store, {name: getattr(batch, name) for name in SEQUENCES}, batch.initial_state)


def sample(store: UnrollStore, count: int) -> Batch:
    sequences, state = store.sample(count, CPU)
    return Batch(**sequences, initial_state=state, final_state={})


def store_of(capacity: int, directory: Path | None = None, seed: int = 0) -> UnrollStore:
    store = UnrollStore(lambda row_bytes: capacity, torch.Generator().manual_seed(seed))
    if directory is not None:
        store.use_directory(directory)
    return store


def kept(store: UnrollStore) -> list[int]:
    """The numbers of all stored unrolls, which are whole."""
    batch = sample(store, len(store))
    numbers = batch.actions[0]
    expected = replace(numbered(0, 1), final_state={})
    for name, tensor in vars(batch).items():
        if isinstance(tensor, torch.Tensor):
            assert tensor.dtype is getattr(expected, name).dtype
            flat = tensor.transpose(0, 1).flatten(1).to(torch.int64)
            limit = 2 if tensor.dtype is torch.bool else 256 if tensor.dtype is torch.uint8 else 1 << 40
            wanted = numbers.clamp_max(1) if limit == 2 else numbers % limit
            assert torch.equal(flat, wanted[:, None].expand_as(flat)), name
    assert torch.equal(batch.initial_state["age"], numbers)
    assert torch.equal(batch.initial_state["layer0/shift"][:, 1, 1], numbers.float())
    return sorted(numbers.tolist())


@pytest.mark.parametrize("on_disk", [False, True])
def test_everything_is_there_as_long_as_there_is_room(on_disk: bool, tmp_path: Path) -> None:
    store = store_of(300, tmp_path / "replay" if on_disk else None)
    for first in range(0, 299, 23):
        offer(store, numbered(first, 23))
    assert kept(store) == list(range(299))
    assert len(list((tmp_path / "replay").glob("*.ckpt"))) == (299 // SEGMENT_ROWS if on_disk else 0)


def test_every_unroll_is_kept_with_the_same_probability() -> None:
    """Chi-squared over many small reservoirs."""
    capacity, offered, repeats = 8, 40, 200
    counts = np.zeros(offered)
    for seed in range(repeats):
        store = store_of(capacity, seed=seed)
        for first in range(0, offered, 5):
            offer(store, numbered(first, 5, steps=1))
        counts[kept(store)] += 1
    expected = repeats * capacity / offered
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - capacity / offered)
    assert statistic < 74.0  # 39 degrees of freedom: p = 0.0006


def test_samples_are_even_and_without_repetition() -> None:
    store = store_of(50)
    offer(store, numbered(0, 50))
    drawn = [sample(store, 20).actions[0].tolist() for _ in range(200)]
    assert all(len(set(numbers)) == 20 for numbers in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    assert ((counts - 80.0) ** 2 / 80.0).sum() / (1 - 20 / 50) < 90.0
    assert sorted(sample(store, 120).actions[0].tolist()).count(7) in (2, 3)


@pytest.mark.parametrize("on_disk", [False, True])
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(on_disk: bool, tmp_path: Path) -> None:
    directory = tmp_path / "replay" if on_disk else None

    def offer_all(store: UnrollStore, first: int, last: int) -> UnrollStore:
        for number in range(first, last, 25):
            offer(store, numbered(number, 25))
        return store

    whole = offer_all(store_of(100, directory), 0, 1000)
    first = offer_all(store_of(100, directory), 0, 500)
    write_checkpoint(tmp_path / "half", {"store": first.state(), "random": first._generator.get_state()})
    offer_all(first, 500, 700)  # what the killed process still did
    content = read_checkpoint(tmp_path / "half.ckpt")
    again = store_of(100)
    again.load_state(content["store"])
    again._generator.set_state(content["random"])
    if directory is not None:
        again.use_directory(directory)
    offer_all(again, 500, 1000)
    assert kept(again) == kept(whole)
    one, other = (sample(store, 30) for store in (again, whole))
    assert torch.equal(one.rgb, other.rgb)
    assert again.state()["files"] == whole.state()["files"]


def test_rows_that_are_of_no_use_are_given_up(tmp_path: Path) -> None:
    """Files do not grow with what was offered, and what a kept checkpoint names stays."""
    store = store_of(150, tmp_path / "replay")
    states = []
    for number in range(0, 20_000, 100):
        offer(store, numbered(number, 100, steps=1))
        if number == 1_000:
            states.append(store.state() | {"places": store.state()["places"].copy()})
        store.prune({Path("kept.ckpt"): state for state in states})
        files = list((tmp_path / "replay").glob("*.ckpt"))
        named = {*store.state()["files"].values(), *(n for s in states for n in s["files"].values())}
        assert {path.name for path in files} == named
        assert len(store.state()["files"]) <= 2 * 150 // SEGMENT_ROWS + 2
    assert len(kept(store)) == 150
    old = store_of(150)
    old.load_state(states[0])
    old.use_directory(tmp_path / "replay")


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    store = store_of(200, tmp_path / "replay")
    offer(store, numbered(0, 150))
    segments = sorted((tmp_path / "replay").glob("*.ckpt"))
    segments[1].unlink()
    again = store_of(200)
    again.load_state(store.state())
    with pytest.raises(CheckpointError, match=rf"{segments[1].name} is missing: .* put it back") as caught:
        again.use_directory(tmp_path / "replay")
    assert "\n" not in str(caught.value)


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    store = store_of(200, tmp_path / "replay")
    offer(store, numbered(0, 150))
    path = min((tmp_path / "replay").glob("*.ckpt"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged"):
        sample(store, 150)
    path.write_bytes(data[:-50])
    with pytest.raises(CheckpointError, match=rf"{path.name} is not a whole"):
        Segment(path)


def test_segments_never_change(tmp_path: Path) -> None:
    """Another content has another name, so that no process spoils what another checkpoint names."""
    names = []
    for offset in (0, 1):
        store = store_of(200, tmp_path / "replay")
        offer(store, numbered(offset, 64))
        names.append(store.state()["files"]["0"])
    assert names[0] != names[1]
    assert len(list((tmp_path / "replay").glob("00000000-*.ckpt"))) == 2


def test_a_directory_that_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "replay"
    place.write_text("in the way")
    store = UnrollStore(lambda row_bytes: 400, torch.Generator())
    store._directory = place
    offer(store, numbered(0, 100))
    assert "stored unrolls cannot be written" in caplog.text
    assert kept(store) == list(range(100))
    assert list(store.state()["in_memory"]) == ["0"]
    place.unlink()
    offer(store, numbered(100, 100))
    assert not store.state()["in_memory"]
    assert kept(store) == list(range(200))


CHANGES: dict[str, tuple[str, Any]] = {
    "a file elsewhere": ("files", {"0": "../0.ckpt"}),
    "no file for a place": ("files", {}),
    "a row beyond the open segment": ("filled", 3),
    "a place before the first": ("places", np.array([[-1, 0]])),
    "places of another form": ("places", torch.zeros(100, 2)),
    "fewer offered than kept": ("seen", 5),
    "no rows at all": ("open", {}),
    "rows of no length": ("open", {"rgb": torch.tensor(1)}),
    "a negative number": ("seen", -1),
    "a segment without a number": ("in_memory", {"x": {}}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    store = store_of(200, tmp_path)
    offer(store, numbered(0, 100))
    key, value = CHANGES[name]
    with pytest.raises(ValueError, match=r"its .*|invalid literal"):
        store_of(200, tmp_path).load_state({**store.state(), key: value})


def test_a_file_of_other_unrolls_is_named(tmp_path: Path) -> None:
    store, other = store_of(200, tmp_path / "a"), store_of(200, tmp_path / "b")
    offer(store, numbered(0, 100))
    offer(other, numbered(0, 100, steps=3))
    for file in (tmp_path / "b").iterdir():
        (name,) = store.state()["files"].values()
        file.rename(tmp_path / "a" / name)
    with pytest.raises(CheckpointError, match=r"0\.ckpt|holds unrolls of another kind"):
        kept(store)


def test_what_does_not_fit_a_checkpoint_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.retention.store.MAX_BYTES_IN_CHECKPOINT", 1_000)
    store = store_of(200)
    offer(store, numbered(0, 63))
    assert not store.saving_problems()
    offer(store, numbered(63, 10))
    (problem,) = store.saving_problems()
    assert "do not go into a checkpoint: store fewer (retain.replay_steps)" in problem


def test_it_is_bounded_by_bytes(learner: MakeLearner, random_batch: MakeBatch) -> None:
    made = learner("clear", replay_gb=20e-6)
    method: Any = made.retention
    for seed in range(6):
        made.learn(random_batch(made.policy, 6, 8, seed), 0)
    row = sum(t[0].nbytes for t in method.store.state()["open"].values())
    assert len(method.store) == 20_000 // row < 48
