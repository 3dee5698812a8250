from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from experiments.stopping import StopOnRequest, StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_a_request_and_ends_learning_at_the_next_step(number: int, code: int) -> None:
    request = StopRequest()
    callback = StopOnRequest(request)
    callback.init_callback(SimpleNamespace(num_timesteps=0))  # type: ignore[arg-type]
    with request.listening():
        assert callback.on_step()
        assert request.exit_code == 0
        os.kill(os.getpid(), number)
        assert not callback.on_step()
    assert request.signal == number
    assert request.exit_code == code


def test_the_handlers_of_before_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest().listening():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_second_signal_leaves_at_once() -> None:
    script = (
        "import os, signal, time\n"
        "from experiments.stopping import StopRequest\n"
        "with StopRequest().listening():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == "still here\n"
    assert done.returncode == -signal.SIGTERM


def test_other_threads_get_no_signals() -> None:
    request, inside = StopRequest(), []

    def listen() -> None:
        with request.listening():
            inside.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert inside == [before]
