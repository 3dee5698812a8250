"""Runs a session for its viewers: steps follow one another only while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp.web import WebSocketResponse

from evaluation.play import native_mode
from evaluation.watch.camera import Camera
from evaluation.watch.controls import ChooseGames, Control, PlayMyself, Seen, View, parse_control
from evaluation.watch.moment import TakenMoment, take
from evaluation.watch.savepoint import savepoint
from evaluation.watch.session import Session
from evaluation.watch.viewer import MAX_IN_FLIGHT, Viewer, Wanted

MAX_WAITING_STEPS = 100
"""Single steps that may be asked for ahead of those that were played."""

RATE_STEPS, RATE_SECONDS = 200, 2.0
"""Over how many steps and seconds the rate is measured."""

T = TypeVar("T")


class Pace:
    """When steps are due, and how many per second there are."""

    def __init__(self) -> None:
        self._played: deque[float] = deque(maxlen=RATE_STEPS)
        self._due = 0.0

    def begin(self) -> None:
        """Steps follow one another from now on."""
        self._played.clear()
        self._due = time.monotonic()

    def played(self) -> None:
        """A step was played."""
        self._played.append(time.monotonic())

    def next_due(self, speed: float) -> float:
        """When the next step is due. What is late is caught up on, but not more than one step."""
        self._due = max(self._due + 1 / speed, time.monotonic() - 1 / speed)
        return self._due

    @property
    def rate(self) -> float | None:
        """Steps per second of late; None before there are enough to tell."""
        if len(self._played) < 3:
            return None
        recent = [when for when in self._played if when > self._played[-1] - RATE_SECONDS]
        first, number = (recent[0], len(recent)) if len(recent) > 2 else (self._played[0], len(self._played))
        return (number - 1) / max(1e-9, self._played[-1] - first)


class SessionRunner:
    """A session, its viewers, and the task that plays on.

    The session runs in a thread of its own, one call at a time, so that the server answers while it computes. Pictures
    are taken in another one, of moments that are over, while the next step is computed.

    Attributes:
        viewers: those who are looking; each event says that there is something new for them.
    """

    def __init__(self, session: Session, render: bool = True) -> None:
        self.session = session
        self.viewers: dict[Viewer, asyncio.Event] = {}
        self._thread = ThreadPoolExecutor(1, "session")
        self._pictures = ThreadPoolExecutor(1, "pictures")
        self._render = render
        self._camera: tuple[tuple[str, ...], Camera] | None = None
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._single_steps = 0
        self._revision = 0

    async def run(self) -> None:
        """Play whenever there are viewers who want it. Ends only by being cancelled, or by a bug in the session."""
        pausing = True
        while True:
            if not self.viewers or not (self.session.playing or self._single_steps):
                pausing = True
                self._changed.clear()
                await self._changed.wait()
                continue
            if pausing:
                self._pace.begin()
                pausing = False
            self._single_steps = max(0, self._single_steps - 1)
            await self._call(self.session.advance)
            self._pace.played()
            self._notify_viewers()
            if self.session.playing:
                await self._rest()

    async def _rest(self) -> None:
        """Wait until the next step is due, or a viewer has asked for something."""
        speed = self.session.speed
        if speed is None:
            await asyncio.sleep(0)
            return
        due = self._pace.next_due(speed)
        self._changed.clear()
        while (left := due - time.monotonic()) > 0 and self.session.speed == speed:
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
                    update = await self._call(lambda: viewer.update(self.session, self._pace.rate))
                    if update is not None:
                        viewer.in_flight += 1
                        await connection.send_bytes(await self.with_camera(update.games, update.message))
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
        if isinstance(control, (ChooseGames, PlayMyself)):
            for one in list(self.viewers):
                one.forget()
        return self.session.apply(control)

    async def take(self, tick: int | None, side: int, game: int, wanted: Wanted) -> TakenMoment:
        """See `moment.take`."""
        return await self._call(lambda: take(self.session, tick, side, game, wanted))

    async def savepoint(self, tick: int | None) -> bytes:
        """See `savepoint.savepoint`."""
        return await self._call(lambda: savepoint(self.session, tick))

    async def with_camera(self, games: tuple[str, ...], use: Callable[[Camera], T]) -> T:
        """What `use` makes of a camera for these games, in the thread of pictures."""

        def work() -> T:
            if self._camera is None or self._camera[0] != games:
                self._close_camera()
                mode = native_mode(self.session.config.mode)
                self._camera = games, Camera(games, mode, self._render)
            return use(self._camera[1])

        return await asyncio.get_running_loop().run_in_executor(self._pictures, work)

    def _close_camera(self) -> None:
        if self._camera is not None:
            self._camera[1].close()
            self._camera = None

    async def close(self) -> None:
        """Wait for the step in progress and free the session."""
        await self._call(self.session.close)
        self._thread.shutdown()
        self._pictures.submit(self._close_camera)
        self._pictures.shutdown()
