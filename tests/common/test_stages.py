from __future__ import annotations

import threading

import pytest

from common.stages import active_stages, stage


def test_stages_are_named_from_the_outside_inwards_and_end() -> None:
    assert active_stages() == []
    with stage("evaluation"):
        with stage("environment"), stage("environment"):
            assert active_stages() == ["evaluation: environment"]
        assert active_stages() == ["evaluation"]
    assert active_stages() == []


def test_an_error_ends_a_stage() -> None:
    with pytest.raises(KeyError), stage("saving"):
        raise KeyError
    assert active_stages() == []


def test_each_thread_has_its_own() -> None:
    ready, free = threading.Barrier(3), threading.Event()

    def work(name: str) -> None:
        with stage(name):
            ready.wait(30)
            free.wait(30)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("acting", "learning")]
    for thread in threads:
        thread.start()
    ready.wait(30)
    with stage("learning"):
        assert sorted(active_stages()) == ["acting", "learning"]
    free.set()
    for thread in threads:
        thread.join()
    assert active_stages() == []
