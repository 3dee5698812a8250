"""Serves the page and its WebSocket. Only the files named here are served, and only to pages that came from here.

Where others than this machine can connect, the printed address carries a token. It is exchanged for a cookie at the
first visit, and nothing is answered without one of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from common.errors import UserError
from evaluation.watch.camera import Camera
from evaluation.watch.moment import TakenMoment
from evaluation.watch.runner import SessionRunner
from evaluation.watch.savepoint import SUFFIX
from evaluation.watch.viewer import Viewer, Wanted

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
    "difference.js": "text/javascript",
    "hands.js": "text/javascript",
    "moment.js": "text/javascript",
    "panels.js": "text/javascript",
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
    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    app = web.AppRunner(
        _Pages(runner, token).application(), access_log=None, shutdown_timeout=1.0, logger=_quiet_log()
    )
    await app.setup()
    playing = asyncio.ensure_future(runner.run())
    try:
        site = web.TCPSite(app, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(_why(error, host, port)) from error
        ready(address_of(host, app.addresses[0][1], token))
        await playing
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        await app.cleanup()
        await runner.close()


def _quiet_log() -> logging.Logger:
    """The server library's log without what strangers send: of a request that is none, it would print a traceback."""
    log = logging.getLogger("aiohttp.server")
    if not any(isinstance(one, _OwnFaults) for one in log.filters):
        log.addFilter(_OwnFaults())
    return log


class _OwnFaults(logging.Filter):
    """Lets through what went wrong in this program alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown."""
        error = record.exc_info[1] if record.exc_info else None
        theirs = error is None or isinstance(error, (HttpProcessingError, ConnectionError))
        return not theirs


def address_of(host: str, port: int, token: str | None = None) -> str:
    """The page's address for a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken on {host}: choose another --port, or leave it out for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved on this machine: choose one above 1023, or leave --port out"
    return f"cannot listen at {host} port {port} ({error.strerror or error}): choose another --host or --port"


class _Pages:
    """What the server answers."""

    def __init__(self, runner: SessionRunner, token: str | None) -> None:
        self._runner, self._token = runner, token
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_MESSAGE)
        app.router.add_get("/", _file("index.html"))
        for name in FILES:
            app.router.add_get(f"/{name}", _file(name))
        app.router.add_get("/session", self._session)
        app.router.add_get("/moment.png", self._moment(TakenMoment.picture, "image/png"))
        app.router.add_get("/moment.npz", self._moment(TakenMoment.archive, "application/octet-stream"))
        app.router.add_get(f"/session{SUFFIX}", self._savepoint)
        app.on_shutdown.append(self._say_goodbye)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse strangers, and pages of other hosts: a name that was made to point here, or a script that opens our
        socket."""
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        foreign = origin is not None and _parts(origin) != (host, _name(host))
        if foreign or (self._token is None and _name(host) not in LOOPBACK):
            raise web.HTTPForbidden(text="This page may only be opened at the address that was printed.\n")
        if self._token is None:
            return await handler(request)
        cookie = f"watch-{_port(request)}"
        if _equal(request.query.get("token"), self._token) and request.path == "/":
            # The token goes from the address into a cookie, where no screenshot shows it.
            answer = web.HTTPSeeOther("/")
            answer.set_cookie(cookie, self._token, httponly=True, samesite="Strict")
            raise answer
        if not (
            _equal(request.cookies.get(cookie), self._token)
            or _equal(request.query.get("token"), self._token)
        ):
            raise web.HTTPForbidden(text="Open the address that was printed, with its token.\n")
        return await handler(request)

    def _moment(
        self, content: Callable[[TakenMoment, Camera], bytes], kind: str
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Answers with a moment as a file."""

        async def answer(request: web.Request) -> web.Response:
            query = request.query
            try:
                tick, side, game = (_number(query.get(name)) for name in ("tick", "side", "game"))
                wanted = Wanted(weights=query.get("weights", ""), head=_number(query.get("head")) or 0)
                moment = await self._runner.take(tick, side or 0, game or 0, wanted)
            except UserError as error:
                raise web.HTTPNotFound(text=f"{error}\n") from error
            body = await self._runner.with_camera(moment.games, lambda camera: content(moment, camera))
            return _download(body, kind, f"{moment.name}.{request.path.rpartition('.')[2]}")

        return answer

    async def _savepoint(self, request: web.Request) -> web.Response:
        """Answers with the file with which another session goes on from a moment."""
        try:
            tick = _number(request.query.get("tick"))
            body = await self._runner.savepoint(tick)
        except UserError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return _download(body, "application/octet-stream", f"session{SUFFIX}")

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


def _parts(address: str) -> tuple[str, str | None]:
    """Host with port, and host, of an address; ("", None) of what is none."""
    try:
        parts = urlsplit(address)
        return parts.netloc, parts.hostname
    except ValueError:
        return "", None


def _name(host: str) -> str | None:
    """The name in a Host header; None if there is none."""
    return _parts(f"//{host}")[1]


def _port(request: web.Request) -> int:
    """At which the server listens: browsers do not tell cookies of two ports apart."""
    place = request.transport.get_extra_info("sockname") if request.transport else None
    return int(place[1]) if place else 0


def _equal(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _download(body: bytes, kind: str, name: str) -> web.Response:
    headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=body, content_type=kind, headers=headers)


def _number(text: str | None) -> int | None:
    """A number in a query; None where it is left out.

    Raises:
        UserError: it is none.
    """
    if text is None:
        return None
    if len(text) < 19 and text.removeprefix("-").isdecimal() and text.isascii():
        return int(text)
    raise UserError("tick, side, game and head must be whole numbers")


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
