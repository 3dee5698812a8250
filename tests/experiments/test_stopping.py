from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from experiments.stopping import StopOnRequest, StopRequest


@pytest.fixture(autouse=True)
def nothing_is_ignored() -> Iterator[None]:
    """Tests that run in the background inherit signals that are ignored, which would stay so."""
    plain = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGQUIT: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),  # a closed terminal
        (signal.SIGQUIT, 131),
        (signal.SIGUSR1, 138),  # what clusters send before they kill
        (signal.SIGUSR2, 140),
        (signal.SIGXCPU, 152),
    ],
)
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


def test_a_signal_that_a_launcher_passes_on_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    request, died = StopRequest(grace_seconds=10.0), []
    monkeypatch.setattr(os, "kill", lambda pid, number: died.append(number))
    with request.listening():
        signal.raise_signal(signal.SIGTERM)
        clock[0] = 105.0
        signal.raise_signal(signal.SIGTERM)
        assert (request.signal, died) == (signal.SIGTERM, [])
        clock[0] = 111.0
        signal.raise_signal(signal.SIGTERM)
        assert died == [signal.SIGTERM]
    assert request.exit_code == 143


def test_the_handlers_of_before_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest().listening():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before


def test_signals_that_the_caller_ignores_stay_ignored() -> None:
    """As `nohup` does with SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        request = StopRequest()
        with request.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_output_that_nobody_reads_ends_nothing() -> None:
    script = (
        "import os, sys\n"
        "from rich.console import Console\n"
        "from experiments.stopping import patient_output\n"
        "console = Console()\n"
        "with patient_output():\n"
        "    for line in range(5000):\n"
        "        console.print(f'line {line}')\n"
        "        print('more', file=sys.stderr)\n"
        "    os.write(int(sys.argv[1]), b'at the end')\n"
    )
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(write)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[write],
        text=True,
    )
    os.close(write)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    process.stderr.close()
    assert os.read(read, 100) == b"at the end"
    assert process.wait(timeout=60) == 0
    os.close(read)


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
