"""The server without a browser: what it serves, what it refuses, and that it works for viewers alone."""

from __future__ import annotations

import asyncio
import json
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

from common.errors import UserError
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
        size = 4 * entry["rows"] * entry["columns"]
        matrices.append(np.frombuffer(rest[:size], "<f4").reshape(entry["rows"], entry["columns"]))
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


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """A request with exactly this path, as no client library would send it."""
    place = urlsplit(address)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), timeout=30) as line:
        lines = {"Host": place.netloc, "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        line.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = b""
        while part := line.recv(65536):
            answer += part
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
        assert pictures == [server.session.history.get(5).sides[0][game].eye() for game in (0, 1)]
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
    server = serving(session(render=True))

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
