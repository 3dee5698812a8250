// Puts the page together: the server's state and updates in, messages out, one drawing for each frame of the screen.

import { onNewColours } from "./charts.js";
import { connect } from "./connection.js";
import { Controls } from "./controls.js";
import { Difference } from "./difference.js";
import { Hands } from "./hands.js";
import { Moments } from "./moment.js";
import { make } from "./panels.js";
import { Tile } from "./tile.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const LETTERS = ["A", "B"];
const TYPE = { 0x89: "image/png", 0xff: "image/jpeg" };
const PANELS_EVERY = 90; // milliseconds: charts move slowly, and drawing them is what costs most
const RATE_EVERY = 500;

let state = null;
let header = null;
let cards = [];
let drawing = false;
let link = location.hash;

const connection = connect({ state: onState, update: onUpdate, error: say, status: onStatus });
const controls = new Controls(send, (change) => send({ type: "view", ...change }));
const timeline = new Timeline(send);
const hands = new Hands(send);
const moments = new Moments(send, say);

function send(message) {
  if (!connection.send(message)) say("Not connected: is the command still running?");
}

let silence = 0;
function say(text) {
  $("message").textContent = text;
  $("message").hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => ($("message").hidden = true), 6000);
}

function onStatus(connected, text) {
  $("connection-text").textContent = text;
  $("connection").classList.toggle("good", connected);
  if (!connected) state = null;
}

function onState(next) {
  const fresh = !state || String(state.games) !== String(next.games) || state.sides.length !== next.sides.length || state.by_hand !== next.by_hand;
  state = next;
  if (fresh) build();
  controls.update(state);
  hands.set(state.by_hand !== null);
  const others = state.viewers - 1;
  $("connection-text").textContent = others ? `connected, ${others} other viewer${others > 1 ? "s" : ""}` : "connected";
  document.title = `${state.playing ? "" : "paused: "}${state.games.join(", ")}`;
  const names = state.sides.flatMap((side) => side.weights.map((one) => one.name));
  if (fresh && names.length && !names.includes(state.view.weights)) send({ type: "view", weights: names[0], head: 0 });
  if (fresh && state.by_hand !== null && state.view.game !== state.by_hand) open(state.by_hand);
  enlarge();
  redraw();
}

function build() {
  header = null;
  cards = state.games.map((name, game) => {
    const tiles = state.sides.map(
      (side, index) =>
        new Tile({
          side: index,
          game,
          name,
          letter: state.sides.length > 1 ? LETTERS[index] : "",
          onOpen: () => open(state.view.game === game ? -1 : game),
          onKey: (key, down) => side.by_hand === game && hands.press(key, down),
        }),
    );
    const badge = make("span", { className: "badge" });
    const place = make("span", { className: "place" });
    const head = make("div", { className: "game-head" }, make("h2", { textContent: name }), place, badge);
    const element = make("section", { className: "game", "aria-label": name }, head, make("div", { className: "game-sides" }, ...tiles.map((tile) => tile.element)));
    const difference = state.sides.length > 1 ? new Difference() : null;
    if (difference) element.append(difference.element);
    for (const tile of tiles) tile.element.classList.toggle("by-hand", state.sides[tile.side].by_hand === game);
    return { tiles, element, badge, place, difference, seen: true, drawn: 0 };
  });
  $("games").replaceChildren(...cards.map((card) => card.element));
  $("games").classList.toggle("two-sides", state.sides.length > 1);
  sizes.disconnect();
  onScreen.disconnect();
  for (const card of cards) {
    onScreen.observe(card.element);
    for (const tile of card.tiles) sizes.observe(tile.element);
  }
}

function open(game) {
  send({ type: "view", game });
}

let enlarged = -1;
function enlarge() {
  const { game } = state.view;
  $("games").classList.toggle("single", game >= 0);
  cards.forEach((card, index) => {
    card.element.hidden = game >= 0 && game !== index;
    for (const tile of card.tiles) tile.shot.setAttribute("aria-label", game === index ? "Show all games" : `Enlarge ${tile.name}`);
  });
  if (game !== enlarged) {
    enlarged = game;
    scrollTo({ top: 0 });
  }
}

// Pictures at full size are asked for only where tiles are so large on this screen.
const sizes = new ResizeObserver(() => {
  const shot = cards[0]?.tiles[0]?.shot;
  if (state && shot && state.view.game < 0) {
    const large = shot.clientWidth * devicePixelRatio > 300;
    if (large !== state.view.large) send({ type: "view", large });
  }
  redraw();
});

// Games that are scrolled away are neither sent nor drawn.
const onScreen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const card = cards.find((one) => one.element === target);
      if (card) card.seen = isIntersecting;
    }
    if (!state || state.view.game >= 0) return;
    const seen = cards.flatMap((card, game) => (card.seen ? [game] : []));
    if (String(seen) !== String(state.view.seen)) send({ type: "view", seen });
    redraw();
  },
  { rootMargin: "60px" },
);

async function onUpdate(next, pictures, weights) {
  if (state) {
    header = next;
    for (const [tick, sides] of next.ticks) {
      sides.forEach((games, side) => games.forEach((numbers, game) => numbers && cards[game]?.tiles[side]?.add(tick, numbers)));
    }
    showRate(next.rate);
    const visible = document.visibilityState === "visible";
    const shown = pictures.map(({ side, game, data }) => {
      const type = TYPE[new Uint8Array(data, 0, 1)[0]];
      return cards[game]?.tiles[side]?.show(new Blob([data], { type }));
    });
    for (const entry of weights) cards[entry.game]?.tiles[entry.side]?.setWeights(entry);
    await Promise.all(shown);
    if (visible) await new Promise(requestAnimationFrame);
    draw();
    if (link) {
      moments.follow(link);
      link = "";
    }
  }
  connection.send({ type: "seen" });
}

let rateShown = 0;
function showRate(rate) {
  if (performance.now() - rateShown < RATE_EVERY) return;
  rateShown = performance.now();
  controls.showRate(rate);
}

function redraw() {
  for (const card of cards) card.drawn = 0;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

let later = 0;
function draw() {
  if (!state || !header) return;
  moments.update(state, header.tick);
  const { game } = state.view;
  const visible = game >= 0 ? [cards[game]] : cards.filter((card) => card.seen);
  const now = performance.now();
  let due = Infinity;
  for (const card of visible) {
    for (const tile of card.tiles) tile.drawNumbers(header.tick, state);
    if (now - card.drawn >= PANELS_EVERY) {
      card.drawn = now;
      for (const tile of card.tiles) tile.drawPanels(header.tick, state);
      card.difference?.draw(card.tiles, header.tick, state);
    } else {
      due = Math.min(due, card.drawn + PANELS_EVERY - now);
    }
    drawHead(card);
  }
  // What was left out is made up for, should nothing else come.
  clearTimeout(later);
  if (due < Infinity) later = setTimeout(draw, due);
  timeline.draw(header, state, (game >= 0 ? visible : cards).flatMap((card) => card.tiles));
}

function drawHead(card) {
  const entries = card.tiles.map((tile) => tile.at(header.tick)).filter(Boolean);
  if (!entries.length) return;
  const kinds = [...new Set(entries.map((entry) => entry.kind))];
  const key = `${entries[0].level} ${entries.map((entry) => entry.kind)}`;
  if (card.headed === key) return;
  card.headed = key;
  const [kind] = kinds;
  card.place.textContent = `level ${entries[0].level}`;
  card.badge.textContent = kinds.length > 1 ? entries.map((entry, side) => `${LETTERS[side]}: ${entry.kind}`).join(", ") : `${kind} level`;
  card.badge.className = `badge ${kinds.length > 1 ? "" : kind}`;
  card.badge.hidden = kinds.length === 1 && kind === "unknown";
}

function toggleExplain(on = !document.body.classList.contains("explain")) {
  document.body.classList.toggle("explain", on);
  $("explain").checked = on;
}
$("explain").addEventListener("change", () => toggleExplain($("explain").checked));

addEventListener("hashchange", () => moments.follow(location.hash));
new ResizeObserver(([entry]) => document.documentElement.style.setProperty("--head", `${entry.target.offsetHeight}px`)).observe(document.querySelector("header"));

onNewColours(redraw);

const KEYS = {
  " ": () => controls.togglePlay(),
  ".": () => send({ type: "step" }),
  "-": () => controls.changeSpeed(-1),
  "+": () => controls.changeSpeed(1),
  "=": () => controls.changeSpeed(1),
  ArrowLeft: () => timeline.move(-1),
  ArrowRight: () => timeline.move(1),
  Home: () => timeline.toEpisodeStart(),
  End: () => send({ type: "play", playing: true }),
  f: () => controls.toggleFreeze(),
  g: () => controls.toggleGreedy(),
  e: () => controls.toggleEye(),
  x: () => toggleExplain(),
  p: () => controls.togglePlayMyself(),
  b: () => moments.goBack(),
  r: () => send({ type: "restart" }),
  n: () => send({ type: "restart", next_levels: true }),
  Escape: () => (state.by_hand === null ? open(-1) : controls.togglePlayMyself()),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
  const { target } = event;
  // Fields use keys themselves, and Space presses the button that has the focus.
  if (target.matches("input:not([type=checkbox]):not([type=radio]), select")) return;
  if (hands.take(event)) return event.preventDefault();
  if (event.key === " " && target.matches("button, summary, input")) return;
  if (target.matches("input[type=radio]") && event.key.startsWith("Arrow")) return;
  const number = "123456789".indexOf(event.key);
  const act = number >= 0 && event.key.length === 1 && number < state.games.length ? () => open(number) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

document.addEventListener("keyup", (event) => hands.take(event));
