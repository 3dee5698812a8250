"""The server without a browser: what it serves, what it refuses, and that it works for viewers alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from evaluation.watch.camera import HALF, Camera
from evaluation.watch.savepoint import read_savepoint
from evaluation.watch.server import FILES, address_of
from evaluation.watch.session import Session
from evaluation.watch.side import WatchedAgent

Serve = Callable[..., Any]
MakeSession = Callable[..., Session]


def unpack(message: bytes) -> tuple[dict[str, Any], list[bytes], list[NDArray[np.float32]]]:
    """Header, pictures and matrices of an update."""
    (length,) = struct.unpack("<I", message[:4])
    header = json.loads(message[4 : 4 + length])
    rest, pictures, matrices = message[4 + length :], [], []
    for entry in header["pictures"]:
        pictures.append(rest[: entry["bytes"]])
        rest = rest[entry["bytes"] :]
    for entry in header["weights"]:
        heads = (entry["heads"],) if entry["head"] < 0 else ()
        shape = (*heads, entry["rows"], entry["columns"])
        size = 4 * math.prod(shape)
        matrices.append(np.frombuffer(rest[:size], "<f4").reshape(shape))
        rest = rest[size:]
    assert rest == b""
    return header, pictures, matrices


class Client:
    """A viewer that is a test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.update: tuple[dict[str, Any], list[bytes], list[NDArray[np.float32]]]

    async def send(self, **message: Any) -> None:
        await self._socket.send_str(json.dumps(message))

    async def raw(self, text: str | bytes) -> None:
        await (self._socket.send_str(text) if isinstance(text, str) else self._socket.send_bytes(text))

    async def until(self, kind: str, accept: Callable[[Any], object] = lambda message: True) -> Any:
        """The next message of a kind (state, error, update) that is acceptable; updates are acknowledged."""
        while True:
            message = await self._socket.receive(30)
            if message.type is aiohttp.WSMsgType.BINARY:
                found, name = unpack(message.data), "update"
                await self.send(type="seen")
                if kind == name and accept(found[0]):
                    return found
                continue
            assert message.type is aiohttp.WSMsgType.TEXT, message
            data = json.loads(message.data)
            if data["type"] == kind and accept(data):
                return data


def talk(address: str, conversation: Callable[..., Any], viewers: int = 1) -> None:
    """Connect some viewers and let `conversation` speak for them."""

    async def run() -> None:
        async with aiohttp.ClientSession() as http:
            sockets = [await http.ws_connect(f"{address}session", max_msg_size=2**24) for _ in range(viewers)]
            await conversation(*map(Client, sockets))
            for one in sockets:
                await one.close()

    asyncio.run(run())


def say(address: str, request: bytes) -> bytes:
    """What the server answers to these bytes."""
    place = urlsplit(address)
    assert place.hostname is not None
    answer = b""
    with (
        socket.create_connection((place.hostname, place.port or 80), timeout=30) as line,
        contextlib.suppress(ConnectionError),  # it may hang up before it has read everything
    ):
        line.sendall(request)
        while part := line.recv(65536):
            answer += part
    return answer


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """A request with exactly this path, as no client library would send it."""
    lines = {"Host": urlsplit(address).netloc, "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    answer = say(address, f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    top, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = top.decode().split("\r\n")
    return int(first.split()[1]), body, dict(field.split(": ", 1) for field in fields)


def test_only_the_page_itself_is_served(session: MakeSession, serving: Serve) -> None:
    server = serving(session())
    status, body, headers = ask(server.address, "/")
    assert status == 200
    assert b"<title>" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in FILES:
        status, body, _ = ask(server.address, f"/{name}")
        assert (status, bool(body)) == (200, True), name
    for path in (
        *("/server.py", "/static/", "/static/index.html", "/../server.py", "/..%2f..%2fserver.py"),
        *(
            "/%2e%2e/server.py",
            "//etc/passwd",
            "/etc/passwd",
            "/index.html/../../server.py",
            "/.",
            "/main.js/",
        ),
        *("/index.html%00.py", "/\\..\\server.py", "/INDEX.HTML"),
    ):
        status, body, _ = ask(server.address, path)
        assert status in (400, 404), path
        assert b"import" not in body
    assert server.session.tick == 0  # nobody watches


def test_other_hosts_pages_are_refused(session: MakeSession, serving: Serve) -> None:
    server = serving(session())
    own = urlsplit(server.address).netloc
    port = own.rpartition(":")[2]
    assert urlsplit(server.address).hostname == "127.0.0.1"
    for host, expected in ((own, 200), (f"localhost:{port}", 200), (f"evil.example:{port}", 403)):
        assert ask(server.address, "/", Host=host)[0] == expected

    async def connect(origin: str) -> None:
        async with aiohttp.ClientSession() as http:
            await (await http.ws_connect(f"{server.address}session", origin=origin)).close()

    asyncio.run(connect(f"http://{own}"))
    for origin in ("http://evil.example", "null", f"http://{own}.evil.example"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            asyncio.run(connect(origin))


NO_REQUESTS = {
    "host": b"GET / HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n",
    "origin": b"GET / HTTP/1.1\r\nHost: HERE\r\nOrigin: http://[\r\nConnection: close\r\n\r\n",
    "headers": b"GET / HTTP/1.1\r\nHost: HERE\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: HERE\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "bytes": b"\x00\xff\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "address": b"GET http://[ HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_what_is_no_request_leaves_the_terminal_alone(
    kind: str, session: MakeSession, serving: Serve, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    server = serving(session())
    own = urlsplit(server.address).netloc.encode()
    answer = say(server.address, NO_REQUESTS[kind].replace(b"HERE", own))
    assert re.match(rb"HTTP/1\.[01] 40[0-9] |$", answer), answer[:100]
    assert ask(server.address, "/")[0] == 200  # it serves on
    shown = "".join(capfd.readouterr())
    assert "Traceback" not in shown
    assert [record for record in caplog.records if record.name == "aiohttp.server"] == []


def test_beyond_this_machine_everything_needs_the_token(session: MakeSession, serving: Serve) -> None:
    server = serving(session(), host="0.0.0.0")
    address, _, token = server.address.partition("?token=")
    assert len(token) >= 16
    for path in ("/", "/main.js", "/session", "/moment.png", "/?token=", f"/?token={token}x", "/?token=%ff"):
        assert ask(address, path)[0] == 403, path
    status, _, headers = ask(address, f"/?token={token}")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    for path in ("/", "/main.js"):
        assert ask(address, path, Cookie=cookie)[0] == 200
        assert ask(address, path, Cookie=f"{cookie}x")[0] == 403
    # A page elsewhere whose name was made to point here has no cookie; one of ours has, but is another origin.
    assert ask(address, "/main.js", Host="evil.example")[0] == 403
    assert ask(address, "/session", Cookie=cookie, Origin="http://evil.example")[0] == 403

    async def connect(**headers: str) -> None:
        async with aiohttp.ClientSession() as http:
            await (await http.ws_connect(f"{address}session", headers=headers)).close()

    asyncio.run(connect(Cookie=cookie))
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        asyncio.run(connect())


def test_a_taken_port_is_one_clear_line(session: MakeSession, serving: Serve) -> None:
    first = serving(session())
    port = urlsplit(first.address).port
    with pytest.raises(UserError, match=rf"^port {port} is taken on 127\.0\.0\.1: choose another --port"):
        serving(session(), port=port)
    with pytest.raises(UserError, match=r"cannot listen at 203\.0\.113\.1"):
        serving(session(), host="203.0.113.1")


def test_addresses_can_be_opened() -> None:
    assert address_of("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert address_of("::", 80) == "http://[::1]:80/"
    assert address_of("::1", 80) == "http://[::1]:80/"
    assert address_of("box", 80) == "http://box:80/"
    assert address_of("box", 80, "abc") == "http://box:80/?token=abc"


def test_controls_do_what_the_state_says(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(client: Client) -> None:
        state = await client.until("state")
        assert (state["playing"], state["speed"], state["viewers"]) == (True, 15.0, 1)
        await client.send(type="speed", steps_per_second=None)
        await client.until("state", lambda state: state["speed"] is None)
        await client.until("update", lambda header: header["tick"] >= 20)
        await client.send(type="play", playing=False)
        state = await client.until("state", lambda state: not state["playing"])
        await client.send(type="step")
        await client.send(type="step")
        header, _, _ = await client.until("update", lambda header: header["tick"] >= state["tick"] + 2)
        assert server.session.tick == header["tick"] == header["last"]
        await client.send(type="look", tick=5)
        header, pictures, _ = await client.until("update", lambda header: header["tick"] == 5)
        camera = Camera(server.session.config.games, "easy")
        records = server.session.history.get(5).sides[0]
        assert pictures == [camera.picture(game, record, HALF) for game, record in enumerate(records)]
        camera.close()
        await client.send(type="levels", split="train", level=8)
        state = await client.until("state", lambda state: state["level"] == 8)
        assert (state["split"], state["looking"]) == ("train", None)
        header, _, _ = await client.until("update", lambda header: header["ticks"])
        assert {game["level"] for _, sides in header["ticks"] for game in sides[0]} == {8}
        await client.send(type="intervene", kind="frozen")
        state = await client.until(
            "state", lambda state: state["sides"][0]["intervention"]["kind"] == "frozen"
        )
        await client.send(type="actions", greedy=False)
        await client.until("state", lambda state: not state["sides"][0]["greedy"])
        await client.send(type="games", games=["maze"])
        await client.until("state", lambda state: state["games"] == ["maze"])
        header, pictures, _ = await client.until("update", lambda header: header["pictures"])
        assert len(pictures) == 1

    talk(server.address, conversation)


def test_the_heat_map_is_the_policys_state(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(client: Client) -> None:
        await client.send(type="play", playing=False)
        await client.send(type="view", weights="layer1/shift", head=1, game=1)
        state = await client.until("state", lambda state: state["view"]["head"] == 1 and not state["playing"])
        assert state["sides"][0]["weights"][1] == {
            "name": "layer1/shift",
            "heads": 2,
            "rows": 4,
            "columns": 16,
            "blocks": [["y", 4], ["q", 4], ["k", 4], ["β", 4]],
        }
        for _ in range(3):
            await client.send(type="step")
            tick = server.session.tick + 1
            header, pictures, matrices = await client.until("update", lambda h, tick=tick: h["tick"] >= tick)
            assert [(entry["game"], entry["name"], entry["head"]) for entry in header["weights"]] == [
                (1, "layer1/shift", 1)
            ]
            assert torch.equal(
                torch.tensor(matrices[0]), server.session.sides[0].player.state["layer1/shift"][1, 1]
            )
            assert matrices[0].any()
            assert [
                (entry["game"], picture[:2])
                for entry, picture in zip(header["pictures"], pictures, strict=True)
            ] == [(1, b"\xff\xd8")]

    talk(server.address, conversation)


BAD = [
    "",
    "{",
    "null",
    "[" * 30_000,
    '{"type": "shutdown"}',
    '{"type": "play"}',
    '{"type": "look", "tick": 99999}',
    '{"type": "view", "game": 9}',
    '{"type": "view", "weights": "layer9/shift"}',
    '{"type": "view", "weights": "layer0/shift", "head": 2}',
    '{"type": "games", "games": ["../../etc/passwd"]}',
    '{"type": "levels", "split": "0:99999999999999999999"}',
    '{"type": "levels", "split": "train", "level": 99999999999}',
    '{"type": "intervene", "kind": "reset", "span": 0}',
    '{"type": "intervene", "kind": "off", "side": 0}',
    '{"type": "actions", "greedy": true, "side": 7}',
    '{"type": "speed", "steps_per_second": 1' + "0" * 400 + "}",
    '{"type": "keep", "tick": 99999}',
    '{"type": "go_back", "tick": -1}',
    '{"type": "play_myself", "game": 7}',
    '{"type": "checkpoint", "steps": 120}',
    '{"type": "view", "weights": "layer0/shift", "head": -2}',
    b"\x00\x01",
]


def test_what_is_not_supported_is_refused_without_harm(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(client: Client) -> None:
        await client.send(type="play", playing=False)
        before = await client.until("state", lambda state: not state["playing"])
        for message in BAD:
            await client.raw(message)
            error = await client.until("error")
            assert error["message"]
            assert "\n" not in error["message"]
        await client.send(type="step")
        after = await client.until("state")
        changing = {"tick", "first"}
        assert {k: v for k, v in after.items() if k not in changing} == {
            k: v for k, v in before.items() if k not in changing
        }

    talk(server.address, conversation)


def test_games_that_nobody_sees_are_not_rendered(
    session: MakeSession, serving: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    frame = Camera.frame

    def counted(camera: Camera, game: int, record: Any) -> Any:
        rendered.append(game)
        return frame(camera, game, record)

    monkeypatch.setattr(Camera, "frame", counted)
    server = serving(session())

    async def conversation(client: Client) -> None:
        await client.send(type="play", playing=False)
        await client.send(type="view", seen=[1])
        await client.until("state", lambda state: state["view"]["seen"] == [1] and not state["playing"])
        rendered.clear()
        for _ in range(4):
            await client.send(type="step")
            header, _, _ = await client.until("update", lambda header: header["ticks"])
            assert len(header["ticks"][-1][1][0]) == 2  # numbers of both games
            assert {entry["game"] for entry in header["pictures"]} <= {1}
        assert set(rendered) == {1}
        rendered.clear()
        await client.send(type="view", eye=True)
        header, _, _ = await client.until("update", lambda header: header["pictures"])
        await client.send(type="step")
        await client.until("update", lambda header: header["ticks"])
        assert rendered == []  # what the policy sees needs no rendering

    talk(server.address, conversation)


def test_all_heads_at_once(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(client: Client) -> None:
        await client.send(type="play", playing=False)
        await client.send(type="view", weights="layer0/shift", head=-1, game=0)
        await client.until("state", lambda state: state["view"]["head"] == -1)
        await client.send(type="step")
        header, _, matrices = await client.until(
            "update", lambda header: header["ticks"] and header["weights"]
        )
        assert header["weights"][0]["heads"] == 2
        shown = server.session.history.get(header["tick"]).sides[0][0].weights["layer0/shift"]
        assert torch.equal(torch.tensor(matrices[0]), shown)

    talk(server.address, conversation)


def test_the_rate_is_that_of_the_steps(session: MakeSession, serving: Serve) -> None:
    server = serving(session())
    server.session.speed = 4.0

    async def conversation(client: Client) -> None:
        header, _, _ = await client.until("update", lambda header: header["tick"] >= 6)
        assert 0 < header["rate"] <= 4.5

    talk(server.address, conversation)


def test_a_moment_is_saved_as_picture_and_numbers(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(client: Client) -> None:
        await client.until("update", lambda header: header["tick"] >= 8)
        await client.send(type="play", playing=False)
        await client.until("state", lambda state: not state["playing"])

    talk(server.address, conversation)
    place = "tick=5&side=0&game=1&weights=layer1/shift&head=-1"
    status, body, headers = ask(server.address, f"/moment.npz?{place}")
    record = server.session.history.get(5).sides[0][1]
    assert status == 200
    assert headers["Content-Disposition"].startswith('attachment; filename="chaser-level')
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        assert (meta["game"], meta["step"], meta["action"]) == ("chaser", 4, record.numbers["action"])
        assert file["frame"].shape == (512, 512, 3)
        assert np.array_equal(file["seen"], record.rgb)
        assert np.array_equal(file["weights/layer1/shift"], record.weights["layer1/shift"])
        assert np.mean(file["heads/layer1/rate_k"]) == pytest.approx(file["readings/layer1/rate_k"], rel=1e-3)
        assert file["readings/layer1/shift_norm"] == pytest.approx(
            np.linalg.norm(file["weights/layer1/shift"]), rel=1e-3
        )
        frame = file["frame"]
    status, body, _ = ask(server.address, f"/moment.png?{place}")
    with Image.open(io.BytesIO(body)) as picture:
        shown = np.asarray(picture.convert("RGB"))
    assert any(
        np.array_equal(shown[top : top + 512, :512], frame) for top in range(shown.shape[0] - 511)
    )  # with the panel beside it
    assert shown.shape[1] > 700
    status, body, headers = ask(server.address, "/session.moment?tick=5")
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="session.moment"')
    assert read_savepoint(io.BytesIO(body)).config.games == ("bossfight", "chaser")
    assert ask(server.address, "/session.moment?tick=99")[0] == 404
    for bad in ("tick=99", "tick=x", "tick=5&game=7", "tick=5&side=1", "tick=" + "9" * 400, "tick=5&head=a"):
        assert ask(server.address, f"/moment.npz?{bad}")[0] == 404, bad


def test_a_huge_message_ends_only_its_own_connection(session: MakeSession, serving: Serve) -> None:
    server = serving(session())

    async def conversation(culprit: Client, other: Client) -> None:
        await culprit.raw("x" * 100_000)
        await other.until("state", lambda state: state["viewers"] == 1)
        await other.until("update")

    talk(server.address, conversation, viewers=2)


def test_work_stops_with_the_last_viewer(session: MakeSession, serving: Serve) -> None:
    server = serving(session())
    server.session.speed = None

    async def conversation(first: Client, second: Client) -> None:
        state = await second.until("state", lambda state: state["viewers"] == 2)
        assert state["playing"]
        await first.until("update", lambda header: header["tick"] > 3)
        # One who comes later is told the past too.
        header, _, _ = await second.until("update")
        assert [number for number, _ in header["ticks"]] == list(range(1, header["last"] + 1))

    talk(server.address, conversation, viewers=2)
    deadline = time.monotonic() + 30
    while server.runner.viewers and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    ticks, cpu = server.session.tick, time.process_time()
    time.sleep(0.5)
    assert (server.session.tick, server.runner.viewers) == (ticks, {})
    assert time.process_time() - cpu < 0.1
    assert server.session.playing

    async def again(client: Client) -> None:
        await client.until("update", lambda header: header["tick"] > ticks)

    talk(server.address, again)


async def arrives(line: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMsgType | None:
    """The type of a message that comes within a record."""
    try:
        return (await line.receive(0.2)).type
    except asyncio.TimeoutError:
        return None


def test_a_viewer_that_shows_nothing_is_sent_nothing_more(session: MakeSession, serving: Serve) -> None:
    server = serving(session())
    server.session.speed = None

    async def run() -> None:
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{server.address}session") as line:
            updates = 0
            while server.session.tick < 30:
                with_timeout = await line.receive(30) if updates < 2 else None
                updates += with_timeout is not None and with_timeout.type is aiohttp.WSMsgType.BINARY
                await asyncio.sleep(0.01)
            assert updates == 2
            assert await arrives(line) != aiohttp.WSMsgType.BINARY
            assert await arrives(line) is None
            await line.send_str('{"type": "seen"}')
            message = await line.receive(30)
            header, _, _ = unpack(message.data)
            assert len(header["ticks"]) > 10  # all that it has missed, with the picture of the last

    asyncio.run(run())


def test_two_sides_of_different_kinds(
    session: MakeSession, serving: Serve, watch: Callable[..., WatchedAgent]
) -> None:
    server = serving(session(watch("deltanet"), watch("feedforward")))

    async def conversation(client: Client) -> None:
        await client.send(type="view", weights="layer0/fast")
        header, _, matrices = await client.until(
            "update", lambda header: header["weights"] and header["ticks"]
        )
        assert {entry["side"] for entry in header["weights"]} == {0}
        assert matrices[0].shape == (4, 4)
        assert len(header["ticks"][0][1]) == 2

    talk(server.address, conversation)
