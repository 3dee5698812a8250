// The bar at the top: what can be asked of the session, and what it says about itself.

import { make } from "./tile.js";

const SPEEDS = [1, 2, 4, 8, 15, 30, 60, null];
const DEFAULT_SPAN = 50;
const $ = (id) => document.getElementById(id);

export class Controls {
  /** @param send sends a message; @param view changes what this page wants to see. */
  constructor(send, view) {
    this.send = send;
    this.view = view;
    this.state = null;
    $("play").addEventListener("click", () => this.togglePlay());
    $("step").addEventListener("click", () => send({ type: "step" }));
    $("restart").addEventListener("click", () => send({ type: "restart" }));
    $("next").addEventListener("click", () => send({ type: "restart", next_levels: true }));
    $("speed").max = SPEEDS.length - 1;
    $("speed").addEventListener("input", () => send({ type: "speed", steps_per_second: SPEEDS[$("speed").value] }));
    $("levels").addEventListener("submit", (event) => event.preventDefault());
    $("split").addEventListener("change", () => this.sendLevels());
    $("level").addEventListener("change", () => this.sendLevels());
    $("game-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const games = [...$("game-list").querySelectorAll("input:checked")].map((box) => box.value);
      send({ type: "games", games });
      $("choose-games").open = false;
    });
    $("choose-games").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !$("choose-games").open) return;
      event.stopPropagation();
      $("choose-games").open = false;
      $("choose-games").querySelector("summary").focus();
    });
    $("matrix").addEventListener("change", () => view({ weights: $("matrix").value, head: 0 }));
    $("head").addEventListener("change", () => view({ head: Number($("head").value) }));
    $("eye").addEventListener("change", () => view({ eye: $("eye").checked }));
    $("help-button").addEventListener("click", () => $("help").showModal());
  }

  togglePlay() {
    this.send({ type: "play", playing: !this.state.playing });
  }

  changeSpeed(by) {
    const index = Math.min(SPEEDS.length - 1, Math.max(0, Number($("speed").value) + by));
    this.send({ type: "speed", steps_per_second: SPEEDS[index] });
  }

  /** Freezes every side that can be frozen, or lets all go on. */
  toggleFreeze() {
    const able = this.state.sides.filter((side) => !side.unsupported.frozen);
    if (!able.length) return;
    const frozen = able.every((side) => side.intervention.kind === "frozen");
    this.send({ type: "intervene", kind: frozen ? "on" : "frozen" });
  }

  toggleGreedy() {
    this.send({ type: "actions", greedy: !this.state.sides.every((side) => side.greedy) });
  }

  toggleEye() {
    this.view({ eye: !this.state.view.eye });
  }

  sendLevels() {
    const level = $("level").value.trim();
    this.send({ type: "levels", split: $("split").value, level: level === "" ? null : Number(level) });
  }

  /** Shows what the server says. */
  update(state) {
    const before = this.state;
    this.state = state;
    $("play").textContent = state.playing ? "Pause" : "Play";
    const speed = SPEEDS.indexOf(state.speed);
    if (speed >= 0) $("speed").value = speed;
    $("speed-text").textContent = state.speed === null ? "fastest" : `${state.speed} / s`;
    $("speed").setAttribute("aria-valuetext", $("speed-text").textContent);
    const splits = state.splits.includes(state.split) ? state.splits : [...state.splits, state.split];
    fill($("split"), splits.map((split) => [split, split]), state.split);
    if (document.activeElement !== $("level")) $("level").value = state.level ?? "";
    $("split").disabled = $("level").disabled = state.mode === "exploration";
    $("eye").checked = state.view.eye;
    this.updateMatrices(state);
    if (!before || !same(before.games, state.games)) {
      $("game-list").replaceChildren(
        ...state.available.map((game) =>
          make("label", {}, make("input", { type: "checkbox", value: game, checked: state.games.includes(game) }), game),
        ),
      );
    }
    if (!before || before.sides.length !== state.sides.length) this.buildSides(state);
    this.updateSides(state);
  }

  updateMatrices(state) {
    const matrices = new Map();
    for (const side of state.sides) for (const one of side.weights) matrices.set(one.name, one.heads);
    $("matrix-group").hidden = !matrices.size;
    if (!matrices.size) return;
    const names = [...matrices.keys()].map((name) => [name, name.replace("layer", "layer ").replace("/", ", ")]);
    fill($("matrix"), [...names, ["", "none"]], state.view.weights);
    const heads = matrices.get(state.view.weights) ?? 0;
    fill($("head"), Array.from({ length: heads }, (_, head) => [String(head), `head ${head}`]), String(state.view.head));
    $("head").hidden = !heads;
  }

  buildSides(state) {
    const two = state.sides.length > 1;
    this.sides = state.sides.map((side, index) => {
      const name = `side${index}`;
      const greedy = make("input", { type: "radio", name: `${name}-actions`, onchange: () => this.send({ type: "actions", greedy: true, side: index }) });
      const sampled = make("input", { type: "radio", name: `${name}-actions`, onchange: () => this.send({ type: "actions", greedy: false, side: index }) });
      const span = make("input", { type: "number", min: 1, max: 1000000, value: DEFAULT_SPAN, "aria-label": "steps between resets" });
      const kinds = {};
      for (const kind of ["on", "frozen", "reset"]) {
        const change = () => this.send({ type: "intervene", kind, side: index, ...(kind === "reset" ? { span: Number(span.value) } : {}) });
        kinds[kind] = make("input", { type: "radio", name: `${name}-modification`, onchange: change });
      }
      span.addEventListener("change", () => kinds.reset.checked && kinds.reset.onchange());
      const labels = {
        on: make("label", {}, kinds.on, "on"),
        frozen: make("label", {}, kinds.frozen, "frozen"),
        reset: make("label", {}, kinds.reset, "reset every", span, "steps"),
      };
      const title = make("span", { className: "side-name" });
      const about = make("span", { className: "about" });
      const info = make("li", { className: `side-info side-${index}` });
      if (two) info.append(make("span", { className: "letter", textContent: "AB"[index] }));
      info.append(
        title,
        about,
        make("fieldset", { className: "choice" }, make("legend", { textContent: "Actions" }), make("label", {}, greedy, "greedy"), make("label", {}, sampled, "sampled")),
        make("fieldset", { className: "choice" }, make("legend", { textContent: "Self-modification" }), labels.on, labels.frozen, labels.reset),
      );
      return { info, title, about, greedy, sampled, span, kinds, labels };
    });
    $("sides").replaceChildren(...this.sides.map((side) => side.info));
  }

  updateSides(state) {
    state.sides.forEach((side, index) => {
      const parts = this.sides[index];
      parts.title.textContent = shortName(side.name);
      parts.title.title = side.name;
      parts.about.textContent = `${side.core}, ${side.algorithm.toUpperCase()}, ${steps(side.trained_steps)} steps`;
      (side.greedy ? parts.greedy : parts.sampled).checked = true;
      parts.kinds[side.intervention.kind].checked = true;
      if (side.intervention.span && document.activeElement !== parts.span) parts.span.value = side.intervention.span;
      for (const [kind, reason] of Object.entries(side.unsupported)) {
        parts.kinds[kind].disabled = reason !== null;
        parts.labels[kind].title = reason ?? "";
        parts.labels[kind].classList.toggle("off", reason !== null);
      }
      parts.span.disabled = side.unsupported.reset !== null;
    });
  }
}

/** A run's directory is what tells checkpoints apart: runs/NAME/checkpoints/step_000000120000.ckpt is NAME. */
function shortName(path) {
  const parts = path.split("/");
  const place = parts.lastIndexOf("checkpoints");
  return place > 0 ? parts[place - 1] : parts[parts.length - 1];
}

function steps(count) {
  if (count >= 1e6) return `${+(count / 1e6).toFixed(1)} M`;
  return count >= 1e3 ? `${Math.round(count / 1e3)} k` : String(count);
}

function same(a, b) {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

function fill(select, options, value) {
  const wanted = options.map(([key, label]) => `${key}=${label}`).join("|");
  if (select.dataset.options !== wanted) {
    select.dataset.options = wanted;
    select.replaceChildren(...options.map(([key, label]) => make("option", { value: key, textContent: label })));
  }
  if (document.activeElement !== select) select.value = value;
}
