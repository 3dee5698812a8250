"""The page in a real browser: what it shows, and that each control does what it says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from evaluation.watch.session import Session
from evaluation.watch.side import SessionConfig, WatchedAgent

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--mute-audio"),
]
PATIENCE = 60_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield one
        one.close()


class Page:
    """A tab, with everything that it asked for and complained about."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(viewport={"width": 1300, "height": 800}, **options)
        self.tab = self._context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("websocket", lambda socket: self.requests.append(socket.url))
        self.tab.goto(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tab, name)

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. (The page's own policy forbids playwright's way to wait.)"""
        end = time.monotonic() + PATIENCE / 1000
        while not self.tab.evaluate(condition):
            assert time.monotonic() < end, f"waited in vain for {condition}"
            self.tab.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        return str(self.tab.locator(selector).first.inner_text())

    def close(self) -> None:
        self._context.close()


@pytest.fixture(scope="module")
def sessions() -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*agents: WatchedAgent, games: tuple[str, ...] = ("bossfight", "chaser")) -> Session:
        made.append(Session(agents, SessionConfig(games)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def page(
    browser: Any, sessions: Callable[..., Session], watch: Callable[..., WatchedAgent], serving: Any
) -> Iterator[Page]:
    """A page that watches one SRWM, and is checked for errors and foreign requests at the end."""
    server = serving(sessions(watch()))
    one = Page(browser, server.address)
    one.server, one.session = server, server.session  # type: ignore[attr-defined]
    one.until("document.querySelectorAll('.picture dd')[2]?.textContent > '1'")
    yield one
    one.close()
    assert one.complaints == []
    assert {urlsplit(url).netloc for url in one.requests} - {""} == {urlsplit(server.address).netloc}


PICTURE = """(index) => {
  const canvas = document.querySelectorAll('.shot canvas')[index];
  return [canvas.width, canvas.toDataURL()];
}"""
STEP = "document.querySelectorAll('.picture dd')[2].textContent"


def test_the_page_plays_and_does_what_its_controls_say(page: Any, browser: Any, wait: Any) -> None:
    session = page.session

    # It shows both games, moving.
    assert [page.text(f".game:nth-child({n}) h2").lower() for n in (1, 2)] == ["bossfight", "chaser"]
    first = page.evaluate(PICTURE, 0)
    assert first[0] in (256, 512)
    page.until(f"Number({STEP}) > 5")
    page.until(f"({PICTURE})(0)[1] !== '{first[1]}'")
    assert page.locator(".tile canvas.chart").count() == 10
    # The page asks for a matrix when it knows which there are: it may come after the first pictures.
    page.until("document.querySelector('.heat').width === 16")  # 3 x 4 + 4 columns
    assert page.text(".badge") == "unseen level"

    # Pause and single steps.
    page.click("#play")
    wait(lambda: not session.playing, "a pause")
    page.until("document.getElementById('play').textContent === 'Play'")
    tick = session.tick
    page.click("#step")
    wait(lambda: session.tick == tick + 1, "a step")
    page.until(f"document.getElementById('timeline').dataset.tick === '{tick + 1}'")
    assert page.text("#when") == "now, paused"
    shown = session.history.last.sides[0][0].numbers
    page.until(f"{STEP} === '{shown['step']}'")
    assert page.text(".picture dd:nth-child(2) >> nth=1") == f"{shown['value']:.2f}"

    # Looking back and forward again, with the keyboard.
    page.locator("#games").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait(lambda: session.looking == tick - 1, "looking back")
    page.until("document.getElementById('when').textContent === '2 steps back'")
    page.keyboard.press("Home")
    wait(lambda: session.looking is not None and session.looking < tick - 1, "the start of the episode")
    assert session.history.get(session.looking).sides[0][0].numbers["start"]
    page.keyboard.press(" ")
    wait(lambda: session.playing and session.looking is None, "playing on")

    # Speed, and how much of it there is.
    for _ in range(3):
        page.keyboard.press("-")
    wait(lambda: session.speed == 2, "a speed that is three times lower")
    page.until("document.getElementById('speed-text').textContent.endsWith('2 / s')")
    page.evaluate(
        "(input => { input.value = input.max; input.dispatchEvent(new Event('input')) })"
        "(document.getElementById('speed'))"
    )
    wait(lambda: session.speed is None, "the fastest")
    page.until("/^[0-9.]+ \\/ s$/.test(document.getElementById('speed-text').textContent)")

    # Self-modification and actions.
    page.click(".side-info summary")
    page.get_by_label("frozen").click()
    wait(lambda: session.sides[0].watched.intervention.kind == "frozen", "freezing")
    page.until("document.querySelector('.pair figcaption').textContent.includes('not applied')")
    page.locator("#games").focus()  # which closes the menu
    page.keyboard.press("f")
    wait(lambda: session.sides[0].watched.intervention.kind == "on", "going on")
    page.click(".side-info summary")
    page.get_by_label("reset every").click()
    wait(lambda: session.sides[0].watched.intervention.span == 50, "resets as the number says")
    page.get_by_label("on", exact=True).click()
    wait(lambda: session.sides[0].watched.intervention.kind == "on", "going on")
    page.get_by_label("steps between resets").fill("7")  # a number that is typed is meant
    page.get_by_label("steps between resets").press("Enter")
    wait(lambda: session.sides[0].watched.intervention.span == 7, "resets")
    page.get_by_label("sampled").click()
    wait(lambda: not session.sides[0].watched.greedy, "sampled actions")

    # Levels and games.
    page.click("#games-menu summary")
    page.select_option("#split", "train")
    wait(lambda: session.config.split == "train", "the split")
    page.fill("#level", "3")
    page.press("#level", "Enter")
    wait(lambda: session.config.level == 3, "the level")
    page.until("[...document.querySelectorAll('.place')].every(place => place.textContent === 'level 3')")
    assert page.text(".badge") == "training level"
    page.get_by_label("maze").click()
    page.get_by_role("button", name="Play these").click()
    wait(lambda: session.config.games == ("bossfight", "chaser", "maze"), "a third game")
    page.until("document.querySelectorAll('.game').length === 3")

    # One game enlarged, at full render resolution, and the pixels that the policy sees.
    page.get_by_role("button", name="Enlarge maze").click()
    page.until("document.querySelectorAll('.game:not([hidden])').length === 1")
    page.until("document.querySelectorAll('.shot canvas')[2].width === 512")
    page.locator("#games").focus()
    page.keyboard.press("e")
    page.until("document.querySelectorAll('.shot canvas')[2].width === 64")
    assert (
        page.evaluate("getComputedStyle(document.querySelectorAll('.shot canvas')[2]).imageRendering")
        == "pixelated"
    )
    page.keyboard.press("Escape")
    page.until("document.querySelectorAll('.game:not([hidden])').length === 3")

    # Restart, and the matrix that is shown, with one head or all of them.
    page.click("#games-menu summary")
    page.click("#restart")
    page.click("#display-menu summary")
    page.select_option("#matrix", "layer1/shift")
    page.select_option("#head", "1")
    page.until(
        "document.querySelector('.heat').getAttribute('aria-label') === 'heat map of layer1/shift, head 1'"
    )
    page.select_option("#head", "-1")
    page.until(
        "document.querySelector('.heat').height === 9"
    )  # two heads of four rows, and a line between them
    page.keyboard.press("Escape")
    page.until("!document.querySelector('details[open]')")

    # A second viewer sees the same session; a message that is not understood harms nobody.
    second = Page(browser, page.server.address)
    second.until("document.querySelectorAll('.game').length === 3")
    page.until("document.getElementById('connection').textContent.includes('1 other viewer')")
    second.locator("#games").focus()
    second.keyboard.press(" ")
    page.until("document.getElementById('play').textContent === 'Play'")
    second.evaluate(
        "new Promise(done => { const socket = new WebSocket(`ws://${location.host}/session`);"
        ' socket.onopen = () => socket.send(\'{"type": "explode"}\');'
        " socket.onmessage = event => typeof event.data === 'string' &&"
        " JSON.parse(event.data).type === 'error' && (socket.close(), done()) })"
    )
    page.click("#play")
    wait(lambda: session.playing, "playing again")
    assert second.complaints == []
    second.close()

    # Closing the last tab leaves no running work.
    page.close()
    wait(lambda: not page.server.runner.viewers, "the end of all viewers")
    tick = session.tick
    time.sleep(0.3)
    assert session.tick <= tick + 1


def test_two_sides_play_the_same_level(
    browser: Any, sessions: Any, watch: Any, serving: Any, wait: Any
) -> None:
    one = replace(watch(), name="trained/bossfight-srwm.ckpt")
    other = replace(watch("lstm", seed=5), name="runs/lstm-5/checkpoints/step_000000001200.ckpt")
    server = serving(sessions(one, other, games=("bossfight",)))
    server.session.speed = None
    page = Page(browser, server.address, color_scheme="dark")
    page.until("document.querySelectorAll('.tile').length === 2")
    page.until(
        "[...document.querySelectorAll('.picture dd')].every(value => /[0-9]/.test(value.textContent))"
    )
    assert page.locator(".side-name").all_inner_texts() == ["bossfight-srwm", "lstm-5"]
    frozen = page.locator("label:has-text('frozen') input")
    assert [frozen.nth(side).is_disabled() for side in (0, 1)] == [False, True]
    page.until("document.querySelector('.difference figcaption').textContent.startsWith('value A − B')")  # noqa: RUF001
    reason = page.evaluate("document.querySelector('.choice label.off').title")
    assert reason == "lstm does not modify its weights"
    page.locator("#games").focus()
    page.keyboard.press("f")
    wait(
        lambda: server.session.sides[0].watched.intervention.kind == "frozen", "freezing the side that can be"
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 17, 21)"
    wait(lambda: server.session.tick > 60, "some episodes")
    levels = {record.numbers["level"] for record in server.session.history.last.sides[0]} | {
        record.numbers["level"] for record in server.session.history.last.sides[1]
    }
    assert len(levels) == 1
    page.close()
    assert page.complaints == []


def test_everything_is_reached_with_the_tab_key(page: Any) -> None:
    """And the focus can be seen wherever it is."""
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "(() => { const e = document.activeElement; return [e.id || e.className || e.name || e.tagName,"
            " getComputedStyle(e).outlineStyle] })()"
        )
        if name != "BODY":
            assert outline != "none", name
        reached.add(name)
    assert {
        "play",
        "step",
        "speed",
        "myself",
        "SUMMARY",
        "shot",
        "timeline",
        "live",
        "help-button",
    } <= reached
    page.keyboard.press("?")
    page.until("document.getElementById('help').open")
    page.keyboard.press("Escape")
    page.until("!document.getElementById('help').open")
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas:not([aria-hidden])')].filter(e =>"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unlabelled == []


SIZES = [(390, 844), (1024, 768), (1280, 720), (1440, 900)]


def test_every_screen_has_room(page: Any) -> None:
    """Nothing is cut off, and the bar at the top takes one row, or less than a fifth of a small screen."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        top = page.evaluate("document.querySelector('header').offsetHeight")
        assert top < (60 if width >= 1280 else height / 5)
        for menu in ("games", "display", "save"):
            page.click(f"#{menu}-menu summary")
            left, right = page.evaluate(
                "(() => { const box = document.querySelector('details[open] .sheet').getBoundingClientRect();"
                " return [box.left, box.right] })()"
            )
            assert left >= 0, menu
            assert right <= width, menu
            page.keyboard.press("Escape")


def test_axes_are_honest(page: Any) -> None:
    """Their ends are other labels, hold all values, and are not drawn so near to each other that noise fills them."""
    page.evaluate("import('./charts.js').then(charts => (window.axisOf = charts.axisOf))")
    page.until("window.axisOf !== undefined")
    rng = np.random.default_rng(0)
    cases = [(0.841, 0.8412, 0.2), (0.0, 0.0, 0.01), (-3e-7, 2e-7, 0.2), (2.5, 2.5, 0.01), (-1e6, 3e6, 0.2)]
    for _ in range(200):
        middle, span = rng.normal() * 10 ** rng.uniform(-4, 4), 10 ** rng.uniform(-8, 4)
        cases.append((middle, middle + span, 10 ** rng.uniform(-3, 1)))
    for low, high, least in cases:
        axis = page.evaluate(
            "([low, high, least]) => { const axis = axisOf(low, high, least);"
            " return [axis.low, axis.high, axis.label(axis.low), axis.label(axis.high)] }",
            [low, high, least],
        )
        room = 1e-6 * max(1.0, abs(low), abs(high))
        assert axis[0] <= low + room, (low, high, least, axis)
        assert axis[1] >= high - room, (low, high, least, axis)
        assert axis[1] - axis[0] >= 0.999 * least, (low, high, least, axis)
        assert axis[2] != axis[3], (low, high, least, axis)
        assert axis[1] - axis[0] <= 2.6 * max(high - low, least) + room, (low, high, least, axis)


def test_a_person_plays_and_a_moment_is_saved(page: Any, wait: Any) -> None:
    session = page.session
    page.click("#myself")
    wait(lambda: session.by_hand == 0, "a person at the keys")
    page.until("document.querySelectorAll('.by-hand').length === 1")
    page.until("document.querySelectorAll('.game:not([hidden])').length === 1")
    page.keyboard.down("ArrowLeft")
    page.keyboard.down("ArrowUp")
    wait(lambda: session.history.last.sides[1][0].numbers["action"] == 2, "left and up")
    page.keyboard.up("ArrowUp")
    wait(lambda: session.history.last.sides[1][0].numbers["action"] == 1, "left alone")
    page.keyboard.up("ArrowLeft")
    wait(lambda: session.history.last.sides[1][0].numbers["action"] == 4, "no key")
    page.keyboard.press("Escape")
    wait(lambda: session.by_hand is None, "the end of playing")
    page.until("document.querySelectorAll('.tile').length === 2")

    wait(lambda: session.history.first is not None and session.tick > session.history.first + 5, "a past")
    page.click("#play")
    wait(lambda: not session.playing, "a pause")
    page.until("document.getElementById('when').textContent === 'now, paused'")
    tick = session.tick
    page.click("#step")
    page.until(f"document.getElementById('timeline').dataset.tick === '{tick + 1}'")
    page.keyboard.press("ArrowLeft")
    page.until("document.getElementById('when').textContent === '1 step back'")
    tick = session.looking
    page.click("#save-menu summary")
    with page.expect_download() as download:
        page.click("#save-npz")
    with np.load(download.value.path()) as file:
        assert json.loads(str(file["meta"]))["step"] == session.history.get(tick).sides[0][0].numbers["step"]
    page.click("#save-link")
    page.until("document.getElementById('link').value !== ''")
    wait(lambda: tick in session.kept, "the moment to be kept")
    link = page.evaluate("document.getElementById('link').value")
    page.keyboard.press("Escape")
    page.click("#live")
    wait(lambda: session.playing and session.looking is None, "the present")
    page.goto("about:blank")
    page.goto(link)
    wait(lambda: session.looking == tick, "the moment of the link")
    page.until(f"document.getElementById('timeline').dataset.tick === '{tick}'")
    page.locator("#games").focus()
    page.keyboard.press("b")
    wait(lambda: session.playing and session.looking is None, "playing on from there")

    def went_back() -> list[Any]:
        later = [session.history.get(number) for number in range(tick + 1, session.tick + 1)]
        return [past for past in later if past.sides[0][0].numbers["cut"]]

    wait(went_back, "the first step from there on")
    cut = went_back()
    assert cut[0].sides[0][0].numbers["step"] == session.remembered(tick).sides[0][0].numbers["step"]
