"""Serves the page and its WebSocket. Only the files named here are served, and only to pages that came from here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.typedefs import Handler

from common.errors import UserError
from evaluation.watch.runner import SessionRunner
from evaluation.watch.viewer import Viewer

DEFAULT_HOST = "127.0.0.1"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_MESSAGE = 64 * 1024
"""Bytes of a message from a viewer."""

FILES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "main.js": "text/javascript",
    "connection.js": "text/javascript",
    "controls.js": "text/javascript",
    "tile.js": "text/javascript",
    "charts.js": "text/javascript",
    "timeline.js": "text/javascript",
}
"""Everything that is served, from `evaluation/watch/static`, and what it is."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def serve(
    runner: SessionRunner,
    host: str = DEFAULT_HOST,
    port: int = 0,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve `runner` until this is cancelled, and play for its viewers meanwhile.

    Args:
        runner: what is watched; it is closed at the end.
        host: address to listen at.
        port: 0 for a free one.
        ready: is called with the page's address once it can be opened.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    app = web.AppRunner(_Pages(runner, host).application(), access_log=None, shutdown_timeout=1.0)
    await app.setup()
    playing = asyncio.ensure_future(runner.run())
    try:
        site = web.TCPSite(app, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(_why(error, host, port)) from error
        ready(address_of(host, app.addresses[0][1]))
        await playing
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        await app.cleanup()
        await runner.close()


def address_of(host: str, port: int) -> str:
    """The page's address for a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken on {host}: choose another --port, or leave it out for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved on this machine: choose one above 1023, or leave --port out"
    return f"cannot listen at {host} port {port} ({error.strerror or error}): choose another --host or --port"


class _Pages:
    """What the server answers."""

    def __init__(self, runner: SessionRunner, host: str) -> None:
        self._runner = runner
        self._only_loopback = host in LOOPBACK
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_MESSAGE)
        app.router.add_get("/", _file("index.html"))
        for name in FILES:
            app.router.add_get(f"/{name}", _file(name))
        app.router.add_get("/session", self._session)
        app.on_shutdown.append(self._say_goodbye)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse pages of other hosts: a name that was made to point here, or a script that opens our socket."""
        name = urlsplit(f"//{request.host}").hostname
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.host
        if foreign or (self._only_loopback and name not in LOOPBACK):
            raise web.HTTPForbidden(text="This page may only be opened at the address that was printed.\n")
        return await handler(request)

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        """The WebSocket of one viewer: controls come in, states and updates go out."""
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=20.0, compress=False)
        await socket.prepare(request)
        viewer = Viewer()
        self._sockets.add(socket)
        attending = asyncio.ensure_future(self._runner.attend(socket, viewer))
        try:
            async for message in socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                try:
                    await self._runner.receive(viewer, _read(message.data))
                except UserError as error:
                    await socket.send_json({"type": "error", "message": str(error)})
        except ConnectionError:
            pass  # the browser has gone
        finally:
            self._sockets.discard(socket)
            attending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await attending
        return socket

    async def _say_goodbye(self, app: web.Application) -> None:
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stopped")


def _file(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers with one of `FILES`."""
    content = (resources.files(__package__) / "static" / name).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=FILES[name], charset="utf-8", headers=_HEADERS)

    return answer


def _read(data: str | bytes) -> object:
    if isinstance(data, bytes):
        raise UserError("a message must be text")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("a message must be JSON") from None
