"""The command line of `eval.py watch`, up to the point where it would serve."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

from common.cli import parse_options
from common.errors import UserError
from evaluation.watch.command_line import Options, has_desktop, prepare
from evaluation.watch.server import FILES
from evaluation.watch.session import Session
from evaluation.watch.side import WatchedAgent


@pytest.fixture
def checkpoint(watch: Callable[..., WatchedAgent], tmp_path: Path) -> str:
    agent = watch().agent
    agent.experiment = {"games": ["bossfight"], "mode": "easy", "levels": "test1"}
    agent.save(tmp_path / "run" / "checkpoints" / "step_000000000000.ckpt")
    return str(tmp_path / "run")


@pytest.fixture
def ask() -> Iterator[Callable[[str], Session]]:
    made: list[Session] = []

    def prepared(words: str) -> Session:
        made.append(prepare(parse_options(Options, words.split(), "watch", "checkpoint")))
        return made[-1]

    yield prepared
    for one in made:
        one.close()


def test_a_run_is_all_it_needs(checkpoint: str, ask: Callable[[str], Session]) -> None:
    state = ask(checkpoint).describe()
    assert (state["games"], state["mode"], state["speed"], state["playing"]) == (
        ["bossfight"],
        "easy",
        15,
        True,
    )
    assert state["split"] == "test2"  # it was trained on the levels of test1
    (side,) = state["sides"]
    assert side["name"].endswith("run/checkpoints/step_000000000000.ckpt")
    assert (side["greedy"], side["intervention"]["kind"]) == (True, "on")


def test_options_override_it(checkpoint: str, ask: Callable[[str], Session]) -> None:
    words = (
        f"{checkpoint} --versus {checkpoint} --games maze chaser --split 5:9 --mode hard --sample --speed 0 --seed 3 "
        "--versus-greedy "
        "--versus-modification frozen --modification 20 --no-render --level 12"
    )
    state = ask(words).describe()
    assert (state["games"], state["mode"], state["split"], state["level"]) == (
        ["maze", "chaser"],
        "hard",
        "5:9",
        12,
    )
    assert (state["speed"], state["seed"]) == (None, 3)
    assert [side["greedy"] for side in state["sides"]] == [False, True]
    assert [side["intervention"] for side in state["sides"]] == [
        {"kind": "reset", "span": 20},
        {"kind": "frozen", "span": None},
    ]


def test_all_mistakes_are_named_at_once(checkpoint: str, ask: Callable[[str], Session]) -> None:
    words = (
        f"{checkpoint} --versus {checkpoint}x --games mzae --split tset1 --port 99999 --speed -1 --history-mb 0 "
        "--modification of --device gpu"
    )
    with pytest.raises(UserError) as caught:
        ask(words)
    message = str(caught.value)
    assert message.startswith("8 problems: ")
    for part in (
        "mzae",
        "tset1",
        "99999",
        "--speed is -1",
        "--history-mb",
        "'of'",
        "gpu",
        "x does not exist",
    ):
        assert part in message
    with pytest.raises(UserError, match="name it with --versus"):
        ask(f"{checkpoint} --versus-sample")
    with pytest.raises(UserError, match="did you mean --modification"):
        ask(f"{checkpoint} --modifcation on")


def test_a_browser_is_opened_only_where_it_is_seen() -> None:
    assert has_desktop({"DISPLAY": ":0"})
    assert has_desktop({"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_desktop({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1 2 3 4"})


def test_the_page_consists_of_the_files_that_are_served() -> None:
    folder = resources.files("evaluation.watch") / "static"
    texts = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir()}
    assert sorted(texts) == sorted(FILES)
    for name, text in texts.items():
        used = re.findall(r"""(?:href|src)="([^"#]+)"|from "\./([^"]+)\"""", text)
        assert {one or other for one, other in used} <= set(FILES), name
        if name != "icon.svg":  # which names its kind by an address
            assert "http" not in re.sub(r"https?:\"|`\$\{scheme\}", "", text), name
