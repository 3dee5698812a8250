"""Runs a session for its viewers: steps follow one another only while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp.web import WebSocketResponse

from evaluation.watch.controls import ChooseGames, Control, Seen, View, parse_control
from evaluation.watch.session import Session
from evaluation.watch.viewer import MAX_IN_FLIGHT, Viewer

MAX_WAITING_STEPS = 100
"""Single steps that may be asked for ahead of those that were played."""

T = TypeVar("T")


class SessionRunner:
    """A session, its viewers, and the task that plays on.

    The session runs in a thread of its own, one call at a time, so that the server answers while it computes.

    Attributes:
        viewers: those who are looking; each event says that there is something new for them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.viewers: dict[Viewer, asyncio.Event] = {}
        self._thread = ThreadPoolExecutor(1, "session")
        self._changed = asyncio.Event()
        self._single_steps = 0
        self._revision = 0

    async def run(self) -> None:
        """Play whenever there are viewers who want it. Ends only by being cancelled, or by a bug in the session."""
        while True:
            if not self.viewers or not (self.session.playing or self._single_steps):
                self._changed.clear()
                await self._changed.wait()
                continue
            began = time.monotonic()
            self._single_steps = max(0, self._single_steps - 1)
            await self._call(self._advance)
            self._notify_viewers()
            if self.session.playing:
                await self._rest(began)

    async def _rest(self, began: float) -> None:
        """Wait until the next step is due, or a viewer has asked for something."""
        speed = self.session.speed
        if speed is None:
            await asyncio.sleep(0)
            return
        self._changed.clear()
        while (left := began + 1 / speed - time.monotonic()) > 0 and self.session.speed == speed:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
            if not self.session.playing or not self.viewers:
                return
            self._changed.clear()

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _notify_viewers(self) -> None:
        for news in self.viewers.values():
            news.set()

    def _announce_change(self) -> None:
        """The state is another one: let `run` look at it, and tell all viewers."""
        self._revision += 1
        self._changed.set()
        self._notify_viewers()

    async def attend(self, connection: WebSocketResponse, viewer: Viewer) -> None:
        """Send a viewer whatever is new, at the pace at which it can show it; ends only by being cancelled."""
        news = self.viewers[viewer] = asyncio.Event()
        self._announce_change()
        sent = -1
        try:
            while True:
                await news.wait()
                news.clear()
                if sent != self._revision:
                    sent = self._revision
                    await connection.send_json(await self._call(lambda: self._state(viewer)))
                if viewer.in_flight < MAX_IN_FLIGHT:
                    update = await self._call(lambda: viewer.update(self.session))
                    if update is not None:
                        viewer.in_flight += 1
                        await connection.send_bytes(update)
        finally:
            del self.viewers[viewer]
            self._announce_change()

    def _state(self, viewer: Viewer) -> dict[str, Any]:
        state = {"view": vars(viewer.wanted), "viewers": len(self.viewers)}
        return {"type": "state", **self.session.describe(), **state}

    async def receive(self, viewer: Viewer, message: object) -> None:
        """Do what a viewer's message asks for.

        Raises:
            UserError: it asks for nothing that exists, or for something that cannot be had; nothing changed then.
        """
        control = parse_control(message)
        if isinstance(control, Seen):
            viewer.in_flight = max(0, viewer.in_flight - 1)
            self.viewers[viewer].set()
            return
        if await self._call(lambda: self._do(viewer, control)):
            self._single_steps = min(self._single_steps + 1, MAX_WAITING_STEPS)
        if self.session.playing:
            self._single_steps = 0
        self._announce_change()

    def _do(self, viewer: Viewer, control: Control) -> bool:
        if isinstance(control, View):
            viewer.change_view(control, self.session)
            return False
        if isinstance(control, ChooseGames):
            for one in list(self.viewers):
                one.forget()
        return self.session.apply(control)

    def _advance(self) -> None:
        viewers = list(self.viewers)
        games = range(len(self.session.config.games))
        self.session.full = [any(viewer.needs_full(game) for viewer in viewers) for game in games]
        self.session.advance()

    async def close(self) -> None:
        """Wait for the step in progress and free the session."""
        await self._call(self.session.close)
        self._thread.shutdown()
