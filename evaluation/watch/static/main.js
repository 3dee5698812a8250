// Puts the page together: the server's state and updates in, messages out, one drawing for each frame of the screen.

import { onNewColours } from "./charts.js";
import { connect } from "./connection.js";
import { Controls } from "./controls.js";
import { Tile, indexAt, make } from "./tile.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const LETTERS = ["A", "B"];
const TYPE = { 0x89: "image/png", 0xff: "image/jpeg" };

let state = null;
let header = null;
let cards = [];
let drawing = false;

const connection = connect({ state: onState, update: onUpdate, error: say, status: onStatus });
const controls = new Controls(send, (change) => send({ type: "view", ...change }));
const timeline = new Timeline(send);

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
  $("connection").textContent = text;
  $("connection").classList.toggle("good", connected);
  if (!connected) state = null;
}

function onState(next) {
  const fresh = !state || String(state.games) !== String(next.games) || state.sides.length !== next.sides.length;
  state = next;
  if (fresh) build();
  controls.update(state);
  const others = state.viewers - 1;
  $("connection").textContent = others ? `connected, ${others} other viewer${others > 1 ? "s" : ""}` : "connected";
  document.title = `${state.playing ? "" : "paused: "}${state.games.join(", ")}`;
  const names = state.sides.flatMap((side) => side.weights.map((one) => one.name));
  if (fresh && names.length && !names.includes(state.view.weights)) send({ type: "view", weights: names[0], head: 0 });
  for (const card of cards) {
    for (const tile of card.tiles) {
      if (tile.weights && (tile.weights.name !== state.view.weights || tile.weights.head !== state.view.head)) tile.clearWeights();
    }
  }
  enlarge();
  redraw();
}

function build() {
  header = null;
  cards = state.games.map((name, game) => {
    const tiles = state.sides.map(
      (_, side) =>
        new Tile({ side, game, name, letter: state.sides.length > 1 ? LETTERS[side] : "", onOpen: () => open(state.view.game === game ? -1 : game) }),
    );
    const badge = make("span", { className: "badge" });
    const place = make("span", { className: "place" });
    const head = make("div", { className: "game-head" }, make("h2", { textContent: name }), place, badge);
    const element = make("section", { className: "game", "aria-label": name }, head, make("div", { className: "game-sides" }, ...tiles.map((tile) => tile.element)));
    return { tiles, element, badge, place };
  });
  $("games").replaceChildren(...cards.map((card) => card.element));
  $("games").classList.toggle("two-sides", state.sides.length > 1);
  sizes.disconnect();
  for (const card of cards) for (const tile of card.tiles) sizes.observe(tile.element);
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

async function onUpdate(next, pictures, weights) {
  if (state) {
    header = next;
    for (const [tick, sides] of next.ticks) {
      sides.forEach((games, side) => games.forEach((numbers, game) => numbers && cards[game]?.tiles[side]?.add(tick, numbers)));
    }
    const visible = document.visibilityState === "visible";
    const shown = pictures.map(({ side, game, data }) => {
      const type = TYPE[new Uint8Array(data, 0, 1)[0]];
      return cards[game]?.tiles[side]?.show(new Blob([data], { type }));
    });
    for (const entry of weights) cards[entry.game]?.tiles[entry.side]?.setWeights(entry);
    await Promise.all(shown);
    if (visible) await new Promise(requestAnimationFrame);
    draw();
  }
  connection.send({ type: "seen" });
}

function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  if (!state || !header) return;
  const { game } = state.view;
  const visible = game >= 0 ? [cards[game]] : cards;
  for (const card of visible) {
    for (const tile of card.tiles) tile.draw(header.tick, state);
    const entries = card.tiles.map((tile) => tile.entries[indexAt(tile.entries, header.tick)]).filter(Boolean);
    if (!entries.length) continue;
    card.place.textContent = `level ${entries[0].level}`;
    const kinds = [...new Set(entries.map((entry) => entry.kind))];
    const [kind] = kinds;
    card.badge.textContent = kinds.length > 1 ? entries.map((entry, side) => `${LETTERS[side]}: ${entry.kind}`).join(", ") : `${kind} level`;
    card.badge.className = `badge ${kinds.length > 1 ? "" : kind}`;
    card.badge.hidden = kinds.length === 1 && kind === "unknown";
  }
  timeline.draw(header, state, visible.flatMap((card) => card.tiles));
}

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
  r: () => send({ type: "restart" }),
  n: () => send({ type: "restart", next_levels: true }),
  Escape: () => open(-1),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
  const { target } = event;
  // Fields use keys themselves, and Space presses the button that has the focus.
  if (target.matches("input:not([type=checkbox]):not([type=radio]), select")) return;
  if (event.key === " " && target.matches("button, summary, input")) return;
  if (target.matches("input[type=radio]") && event.key.startsWith("Arrow")) return;
  const number = "123456789".indexOf(event.key);
  const act = number >= 0 && event.key.length === 1 && number < state.games.length ? () => open(number) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
