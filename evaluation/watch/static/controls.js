// The bar at the top: what can be asked of the session, and what it says about itself.

import { make } from "./panels.js";

const SPEEDS = [1, 2, 4, 8, 15, 30, 60, null];
const DEFAULT_SPAN = 50;
const ALL_HEADS = -1;
const PATIENCE = 800; // milliseconds in which the server's word on the speed may be older than the user's
const REACHED = 0.93; // share of the wanted speed that counts as it
const $ = (id) => document.getElementById(id);

export class Controls {
  /** @param send sends a message; @param view changes what this page wants to see. */
  constructor(send, view) {
    this.send = send;
    this.view = view;
    this.state = null;
    this.rate = null;
    this.chosen = -Infinity;
    $("play").addEventListener("click", () => this.togglePlay());
    $("step").addEventListener("click", () => send({ type: "step" }));
    $("restart").addEventListener("click", () => send({ type: "restart" }));
    $("next").addEventListener("click", () => send({ type: "restart", next_levels: true }));
    $("speed").max = SPEEDS.length - 1;
    $("speed").addEventListener("input", () => this.chooseSpeed(Number($("speed").value)));
    $("levels").addEventListener("submit", (event) => event.preventDefault());
    $("split").addEventListener("change", () => this.sendLevels());
    $("level").addEventListener("change", () => this.sendLevels());
    $("game-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const games = [...$("game-list").querySelectorAll("input:checked")].map((box) => box.value);
      send({ type: "games", games });
      $("games-menu").open = false;
    });
    $("matrix").addEventListener("change", () => view({ weights: $("matrix").value, head: 0 }));
    $("head").addEventListener("change", () => view({ head: Number($("head").value) }));
    $("eye").addEventListener("change", () => view({ eye: $("eye").checked }));
    $("myself").addEventListener("click", () => this.togglePlayMyself());
    $("help-button").addEventListener("click", () => $("help").showModal());
    addEventListener("pointerdown", (event) => this.closeMenus(event.target));
    addEventListener("focusin", (event) => this.closeMenus(event.target));
    addEventListener("keydown", (event) => event.key === "Escape" && this.closeMenus() && event.stopImmediatePropagation(), true);
  }

  /** Closes all menus but the one that holds `target`; returns whether there was one to close. */
  closeMenus(target = null) {
    const open = [...document.querySelectorAll("details.popover[open]")].filter((menu) => !target || !menu.contains(target));
    for (const menu of open) {
      const within = menu.contains(document.activeElement);
      menu.open = false;
      if (within) menu.querySelector("summary").focus();
    }
    return open.length > 0;
  }

  togglePlay() {
    this.send({ type: "play", playing: !this.state.playing });
  }

  togglePlayMyself() {
    const { by_hand: now, view } = this.state;
    this.send({ type: "play_myself", game: now === null ? Math.max(0, view.game) : null });
    $("games").focus();
  }

  changeSpeed(by) {
    this.chooseSpeed(Math.min(SPEEDS.length - 1, Math.max(0, Number($("speed").value) + by)));
  }

  chooseSpeed(index) {
    $("speed").value = index;
    this.chosen = performance.now();
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

  /** Says how many steps per second there really are. */
  showRate(rate) {
    this.rate = rate;
    this.updateSpeed();
  }

  updateSpeed() {
    const { state, rate } = this;
    if (!state) return;
    const wanted = state.speed, known = rate !== null && state.playing;
    const short = known && wanted !== null && rate < REACHED * wanted;
    const round = rate >= 10 ? Math.round(rate) : Math.round(rate * 10) / 10;
    const text = wanted === null ? (known ? `${round} / s` : "fastest") : short ? `${round} of ${wanted} / s` : `${wanted} / s`;
    if ($("speed-text").textContent !== text) $("speed-text").textContent = text;
    $("speed-text").classList.toggle("short", short);
    $("speed-text").title = short ? "The machine does not reach the speed that is asked for" : wanted === null ? "as fast as possible" : "";
    $("speed").setAttribute("aria-valuetext", wanted === null ? "fastest" : `${wanted} steps per second`);
  }

  /** Shows what the server says. */
  update(state) {
    const before = this.state;
    this.state = state;
    $("play").textContent = state.playing ? "Pause" : "Play";
    const speed = SPEEDS.indexOf(state.speed);
    if (speed >= 0 && performance.now() - this.chosen > PATIENCE) $("speed").value = speed;
    this.updateSpeed();
    const splits = state.splits.includes(state.split) ? state.splits : [...state.splits, state.split];
    fill($("split"), splits.map((split) => [split, split]), state.split);
    if (document.activeElement !== $("level")) $("level").value = state.level ?? "";
    $("split").disabled = $("level").disabled = state.mode === "exploration";
    $("eye").checked = state.view.eye;
    $("myself").setAttribute("aria-pressed", String(state.by_hand !== null));
    $("myself").textContent = state.by_hand === null ? "Play yourself" : "Stop playing";
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
    const options = Array.from({ length: heads }, (_, head) => [String(head), `head ${head}`]);
    if (heads > 1) options.push([String(ALL_HEADS), "all heads"]);
    fill($("head"), options, String(state.view.head));
    $("head").hidden = !heads;
  }

  buildSides(state) {
    const two = state.sides.length > 1;
    this.sides = state.sides.map((_, index) => this.buildSide(index, two));
    $("sides").replaceChildren(...this.sides.map((side) => make("li", {}, side.menu)));
  }

  buildSide(index, two) {
    const name = `side${index}`;
    const greedy = make("input", { type: "radio", name: `${name}-actions`, onchange: () => this.send({ type: "actions", greedy: true, side: index }) });
    const sampled = make("input", { type: "radio", name: `${name}-actions`, onchange: () => this.send({ type: "actions", greedy: false, side: index }) });
    const span = make("input", { type: "number", min: 1, max: 1000000, value: DEFAULT_SPAN, required: true, "aria-label": "steps between resets" });
    const kinds = {};
    const intervene = (kind) => this.send({ type: "intervene", kind, side: index, ...(kind === "reset" ? { span: Number(span.value) } : {}) });
    for (const kind of ["on", "frozen", "reset"]) {
      kinds[kind] = make("input", { type: "radio", name: `${name}-modification`, onchange: () => intervene(kind) });
    }
    // A number that is typed is meant: it chooses resets.
    span.addEventListener("change", () => span.checkValidity() && intervene("reset"));
    const labels = {
      on: make("label", {}, kinds.on, "on"),
      frozen: make("label", {}, kinds.frozen, "frozen"),
      reset: make("label", {}, kinds.reset, "reset every"),
    };
    const title = make("span", { className: "side-name" });
    const brief = make("span", { className: "brief" });
    const about = make("p", { className: "about" });
    const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Checkpoint" });
    const when = make("output", {});
    const run = make("label", { className: "row", hidden: true }, "Checkpoint", slider, when);
    slider.addEventListener("input", () => (when.textContent = this.checkpointText(index)));
    slider.addEventListener("change", () => {
      this.send({ type: "checkpoint", side: index, steps: this.state.sides[index].checkpoints[Number(slider.value)] });
    });
    const letter = two ? [make("span", { className: "letter", textContent: "AB"[index] })] : [];
    const menu = make(
      "details",
      { className: `popover side-info side-${index}` },
      make("summary", {}, ...letter, title, brief),
      make(
        "div",
        { className: "sheet" },
        about,
        run,
        make("fieldset", { className: "choice" }, make("legend", { textContent: "Actions" }), make("label", {}, greedy, "greedy"), make("label", {}, sampled, "sampled")),
        make("fieldset", { className: "choice" }, make("legend", { textContent: "Self-modification" }), labels.on, labels.frozen, make("span", { className: "reset" }, labels.reset, span, "steps")),
      ),
    );
    return { menu, title, brief, about, greedy, sampled, span, kinds, labels, run, slider, when };
  }

  checkpointText(index) {
    const { checkpoints } = this.state.sides[index];
    return `${steps(checkpoints[Number(this.sides[index].slider.value)])} steps`;
  }

  updateSides(state) {
    state.sides.forEach((side, index) => {
      const parts = this.sides[index];
      const byHand = side.by_hand !== null;
      parts.title.textContent = byHand ? "You" : shortName(side.name);
      parts.brief.textContent = [`${steps(side.trained_steps)}`, side.greedy ? "greedy" : "sampled", modification(side)].filter(Boolean).join(" · ");
      parts.brief.hidden = byHand;
      parts.menu.querySelector("summary").title = side.name;
      parts.about.textContent = byHand
        ? `You play ${state.games[side.by_hand]}; the panels show what the agent of side A thinks of it, and what watching you writes into its weights.`
        : `${side.name}: ${side.core}, ${side.algorithm.toUpperCase()}, trained for ${side.trained_steps.toLocaleString("en")} steps.`;
      (side.greedy ? parts.greedy : parts.sampled).checked = true;
      parts.kinds[side.intervention.kind].checked = true;
      if (side.intervention.span && document.activeElement !== parts.span) parts.span.value = side.intervention.span;
      for (const [kind, reason] of Object.entries(side.unsupported)) {
        parts.kinds[kind].disabled = reason !== null;
        parts.labels[kind].title = reason ?? "";
        parts.labels[kind].classList.toggle("off", reason !== null);
      }
      parts.span.disabled = side.unsupported.reset !== null;
      parts.run.hidden = side.checkpoints.length < 2;
      parts.slider.max = Math.max(0, side.checkpoints.length - 1);
      if (document.activeElement !== parts.slider || !parts.run.hidden) parts.slider.value = Math.max(0, side.checkpoints.indexOf(side.trained_steps));
      parts.when.textContent = parts.run.hidden ? "" : this.checkpointText(index);
    });
  }
}

function modification(side) {
  const { kind, span } = side.intervention;
  return kind === "on" ? "" : kind === "frozen" ? "frozen" : `reset ${span}`;
}

/** What tells checkpoints apart: runs/NAME/checkpoints/step_000000120000.ckpt is NAME, elsewhere/NAME.ckpt too. */
function shortName(path) {
  const parts = path.split("/");
  const place = parts.lastIndexOf("checkpoints");
  return place > 0 ? parts[place - 1] : parts[parts.length - 1].replace(/\.ckpt$/, "");
}

function steps(count) {
  if (count >= 1e6) return `${+(count / 1e6).toFixed(1)} M`;
  return count >= 1e3 ? `${+(count / 1e3).toFixed(count < 1e4 ? 1 : 0)} k` : String(count);
}

function same(a, b) {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

/** Gives a select these options, [value, label] each, and chooses one. */
export function fill(select, options, value) {
  const wanted = options.map(([key, label]) => `${key}=${label}`).join("|");
  if (select.dataset.options !== wanted) {
    select.dataset.options = wanted;
    select.replaceChildren(...options.map(([key, label]) => make("option", { value: key, textContent: label })));
  }
  if (document.activeElement !== select) select.value = value;
}
