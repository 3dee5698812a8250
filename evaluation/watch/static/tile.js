// One game of one side: its picture, its numbers, and what the policy thinks.

import { barChart, headGrid, heatMap, short, timeChart } from "./charts.js";
import { make, panel } from "./panels.js";

const SIGNS = { LEFT: "←", RIGHT: "→", UP: "↑", DOWN: "↓" };
const DIAGONALS = { "left+down": "↙", "left+up": "↖", "right+down": "↘", "right+up": "↗", none: "·" };
const KEYBOARD = [["Q", 1, 1], ["W", 2, 1], ["E", 3, 1], ["A", 1, 2], ["S", 2, 2], ["D", 3, 2], ["UP", 6, 1], ["LEFT", 5, 2], ["DOWN", 6, 2], ["RIGHT", 7, 2]];
const LAYERS = 4; // colours of layers
const SHIFTS = ["shift_norm", "fast_norm"];
const RATE_SIGNS = { rate_y: "y", rate_q: "q", rate_k: "k", rate_beta: "β", rate: "β" };
const LEAST_VALUE = 0.2; // shortest axis of values: a tenth of the smallest reward of most games
const REMEMBERED = 6000; // steps

export const WHY = {
  value: "The line is the value: the discounted return that the policy expects from here on. Bars are rewards, with a scale of their own.",
  actions: "How likely the policy makes each action, in percent; the chosen one is lit. Entropy is how undecided it is: 0 where one action is certain, 2.71 where all 15 are equally likely.",
  norms: "Lines: how far each layer's weights have moved since its memory was last cleared, W₀ being the trained ones. Bars: how much each step has changed them, ‖Wₜ − Wₜ₋₁‖.",
  rates: "The learning rates that each layer sets itself, 0 to 1: bars are means over heads, each line across a bar is one head. They are for the columns of its matrix that make outputs (y), queries (q), keys (k) and these rates (β).",
  heat: "How each entry of the matrix has changed. Rows are features of the input; columns make output (y), query (q), key (k) and learning rates (β). Colours follow the root of the magnitude; the number is that of the strongest.",
};

export function actionSign(action) {
  return DIAGONALS[action.name] ?? SIGNS[action.keys[0]] ?? action.keys[0];
}

/** In nats. */
export function entropy(probabilities) {
  return probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
}

/** Index of the last entry of `entries` at or before `tick`; -1 if there is none. */
export function indexAt(entries, tick) {
  let low = 0, high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].tick <= tick) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

export class Tile {
  /**
   * @param {{side: number, game: number, name: string, letter: string, onOpen: Function, onKey: Function}} place
   *   letter is "" where there is only one side; onKey(key, down) is told of keys that are pressed with a finger.
   */
  constructor({ side, game, name, letter, onOpen, onKey }) {
    this.side = side;
    this.game = game;
    this.entries = [];
    this.starts = []; // steps that begin an episode
    this.weights = null;
    this.scale = 0;
    this.name = letter ? `${name}, ${letter}` : name;
    this.canvas = make("canvas", { width: 512, height: 512, role: "img", "aria-label": this.name });
    this.over = make("span", { className: "over", hidden: true });
    this.shot = make("button", { className: "shot", onclick: onOpen, "aria-label": `Enlarge ${this.name}` }, this.canvas, this.over);
    if (letter) this.shot.append(make("span", { className: "letter", textContent: letter, "aria-hidden": "true" }));
    this.numbers = {};
    const list = make("dl");
    for (const key of ["return", "value", "step"]) {
      this.numbers[key] = make("dd", { textContent: "–" });
      list.append(make("div", {}, make("dt", { textContent: key }), this.numbers[key]));
    }
    this.tally = make("p", { className: "tally" });
    this.keyboard = this.makeKeyboard(onKey);
    this.chart = panel("chart", "value and reward over time", WHY.value);
    this.actions = panel("bars", "probabilities of the actions", WHY.actions);
    this.norms = panel("chart", "norm of the weight shift of each layer over time", WHY.norms);
    this.rates = panel("bars", "self-generated rates", WHY.rates);
    this.heat = panel("heat", "heat map of the weight shift", WHY.heat);
    this.norms.figure.classList.add("norms");
    this.blocks = make("div", { className: "blocks", "aria-hidden": "true" });
    this.heat.canvas.after(this.blocks);
    this.more = make("div", { className: "more" });
    this.others = new Map(); // panels of readings that have no place of their own, by name
    this.element = make(
      "div",
      { className: `tile side-${side}` },
      make(
        "div",
        { className: "tile-body" },
        make("div", { className: "picture" }, this.shot, list, make("div", { className: "facts" }, this.keyboard, this.tally)),
        make(
          "div",
          { className: "panels" },
          make("div", { className: "column" }, this.chart.figure, this.actions.figure, this.norms.figure),
          make("div", { className: "column" }, make("div", { className: "pair" }, this.rates.figure, this.heat.figure), this.more),
        ),
      ),
    );
  }

  makeKeyboard(onKey) {
    this.keys = new Map();
    const keyboard = make("div", { className: "keys", role: "img", "aria-label": "keys pressed" });
    for (const [key, column, row] of KEYBOARD) {
      const cap = make("span", { className: "key", textContent: SIGNS[key] ?? key });
      cap.style.gridColumn = column;
      cap.style.gridRow = row;
      cap.addEventListener("pointerdown", (event) => onKey(key, true) && event.preventDefault());
      for (const end of ["pointerup", "pointerleave", "pointercancel"]) cap.addEventListener(end, () => onKey(key, false));
      this.keys.set(key, cap);
      keyboard.append(cap);
    }
    return keyboard;
  }

  add(tick, numbers) {
    this.entries.push({ tick, ...numbers });
    if (numbers.start || numbers.cut) this.starts.push(tick);
    if (this.entries.length > REMEMBERED) this.entries.splice(0, REMEMBERED / 3);
  }

  /** Paints the picture in `blob`. */
  async show(blob) {
    const bitmap = await createImageBitmap(blob);
    if (this.canvas.width !== bitmap.width) [this.canvas.width, this.canvas.height] = [bitmap.width, bitmap.height];
    this.canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
    this.shot.classList.toggle("eye", bitmap.width === 64);
    bitmap.close();
  }

  setWeights(weights) {
    if (this.weights?.name !== weights.name || this.weights?.head !== weights.head) this.scale = 0;
    this.weights = weights;
  }

  /** What is shown at the step `tick`; undefined before there is anything. */
  at(tick) {
    return this.entries[indexAt(this.entries, tick)];
  }

  /** Brings numbers to the step `tick`. */
  drawNumbers(tick, state) {
    const now = this.at(tick);
    if (!now) return;
    const { numbers } = this;
    setText(numbers.return, short(now.return));
    setText(numbers.value, now.value === null ? "–" : now.value.toFixed(2));
    setText(numbers.step, String(now.step));
    setText(this.tally, now.episodes ? `last ${short(now.last)}, mean ${now.mean.toFixed(1)} of ${now.episodes}` : "first episode");
    const action = state.actions[now.action];
    if (this.pressed !== now.action) {
      this.pressed = now.action;
      for (const [key, cap] of this.keys) cap.classList.toggle("down", action.keys.includes(key));
      this.keyboard.setAttribute("aria-label", `keys pressed: ${action.keys.join(" ") || "none"}`);
    }
    const waiting = now.ended && tick > now.tick;
    this.shot.classList.toggle("waiting", waiting);
    this.over.hidden = !now.ended;
    if (now.ended) {
      const how = now.complete ? "level completed" : "episode ended";
      setText(this.over, `${how}, return ${short(now.final)}${waiting ? ", waiting" : ""}`);
    }
  }

  /** Brings the panels to the step `tick`. */
  drawPanels(tick, state) {
    const cursor = indexAt(this.entries, tick);
    if (cursor < 0) return;
    const now = this.entries[cursor];
    const about = state.sides[this.side];
    const byHand = about.by_hand === this.game;
    this.chart.label(["value", now.value === null ? "–" : now.value.toFixed(2), "value"], ["reward", short(now.reward), now.reward < 0 ? "loss" : "gain"]);
    timeChart(this.chart.canvas, this.entries, cursor, {
      lines: [{ get: (entry) => entry.value, colour: "value" }],
      bars: [{ get: (entry) => entry.reward, colours: ["gain", "loss"] }],
      zero: false,
      least: LEAST_VALUE,
    });
    const action = state.actions[now.action];
    const name = action.name === "none" ? "no key" : actionSign(action);
    const likely = now.probabilities[now.action];
    this.actions.label([byHand ? "you" : "action", `${name} ${likely === null ? "" : `${(100 * likely).toFixed(likely < 0.095 ? 1 : 0)} %`}`], ["entropy", entropy(now.probabilities).toFixed(2)]);
    const bars = now.probabilities.map((value, index) => ({ value, label: actionSign(state.actions[index]), colour: "bar", group: 0 }));
    barChart(this.actions.canvas, bars, now.action);
    this.drawReadings(now, cursor, about, state.words);
    this.drawWeights(about, state.view);
  }

  drawReadings(now, cursor, about, words) {
    const all = Object.entries(now.readings).flatMap(([kind, named]) => Object.keys(named).map((tag) => ({ kind, tag, ...parse(tag) })));
    const norms = all.filter((one) => SHIFTS.includes(one.name));
    const written = all.filter((one) => one.kind === "written");
    const rates = all.filter((one) => one.kind === "rate" && one.name in RATE_SIGNS);
    const known = new Set([...norms, ...written, ...rates]);
    this.norms.figure.hidden = !norms.length;
    this.rates.figure.hidden = !rates.length;
    const sum = (entry) => written.reduce((total, { tag }) => total + (entry.readings.written?.[tag] ?? 0), 0);
    if (norms.length) {
      const title = norms[0].name === "fast_norm" ? "‖W‖" : "‖W−W₀‖";
      timeChart(this.norms.canvas, this.entries, cursor, {
        lines: norms.map(({ tag, layer }) => ({ get: (entry) => entry.readings.norm?.[tag], colour: layerColour(layer) })),
        bars: [{ get: sum, colours: ["write", "write"] }],
        zero: true,
        least: 0.01,
      });
      this.norms.label(title, ...norms.map(({ tag, layer }) => ["", short(now.readings.norm[tag]), layerColour(layer)]), ["written", `+${short(sum(now))}`, "write"]);
    }
    if (rates.length) {
      this.rates.label(...(about.intervention.kind === "frozen" ? ["rates,", "not applied"] : ["rates"]));
      barChart(
        this.rates.canvas,
        rates.map(({ tag, name, layer }) => ({ value: now.readings.rate[tag], heads: now.heads[tag], label: RATE_SIGNS[name], colour: layerColour(layer), group: layer })),
      );
    }
    this.drawOthers(all.filter((one) => !known.has(one)), cursor, now, words);
  }

  /** Readings that have no panel of their own: whatever a core says of itself. */
  drawOthers(readings, cursor, now, words) {
    const names = new Map();
    for (const one of readings) names.set(one.name, [...(names.get(one.name) ?? []), one]);
    for (const [name, found] of names) {
      const [title, why] = words[name] ?? [name.replaceAll("_", " "), "A number that this core says of itself."];
      if (!this.others.has(name)) {
        const one = panel("chart", `${title} over time`, why);
        this.others.set(name, one);
        this.more.append(one.figure);
      }
      const one = this.others.get(name);
      one.label(title, ...found.map(({ kind, tag, layer }) => ["", short(now.readings[kind][tag]), layerColour(layer)]));
      timeChart(one.canvas, this.entries, cursor, {
        lines: found.map(({ kind, tag, layer }) => ({ get: (entry) => entry.readings[kind]?.[tag], colour: layerColour(layer) })),
        bars: [],
        zero: true,
        least: ["rate", "share"].includes(found[0].kind) ? 1 : 0.01,
      });
    }
    for (const [name, one] of this.others) one.figure.hidden = !names.has(name);
  }

  drawWeights(about, view) {
    const { weights } = this;
    this.heat.figure.hidden = weights?.name !== view.weights || weights?.head !== view.head;
    if (this.heat.figure.hidden || this.drawn === weights) return;
    this.drawn = weights;
    const strongest = magnitude(weights.values);
    // The scale follows at once upwards and slowly downwards, so that colours can be compared from step to step.
    this.scale = Math.max(strongest, this.scale * 0.995);
    const shape = heatMap(this.heat.canvas, weights.values, weights, this.scale);
    // A few pixels for each cell, at least: a matrix of four columns is not stretched over the whole width.
    this.heat.canvas.style.aspectRatio = String(shape);
    const which = weights.head < 0 ? `all ${weights.heads} heads` : `head ${weights.head}`;
    this.heat.label(weights.name.endsWith("/fast") ? "Wₜ" : "Wₜ − W₀", ["", `±${short(this.scale)}`]);
    this.heat.canvas.setAttribute("aria-label", `heat map of ${weights.name}, ${which}`);
    this.labelColumns(weights, about.weights.find((one) => one.name === weights.name));
  }

  labelColumns(weights, facts) {
    const across = weights.head < 0 ? headGrid(weights)[1] : 1;
    const key = `${weights.name} ${across}`;
    if (!facts || this.blocks.dataset.key === key) return;
    this.blocks.dataset.key = key;
    const one = () =>
      facts.blocks.map(([label, columns]) => {
        const block = make("span", { textContent: label });
        block.style.flex = `${columns} 0 0`;
        return block;
      });
    this.blocks.replaceChildren(...Array.from({ length: across }, one).flat());
  }
}

export function magnitude(values) {
  let best = 0;
  for (const value of values) best = Math.max(best, Math.abs(value));
  return best;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** "layer0/shift_norm" is the reading "shift_norm" of layer 0; one without a layer is about the whole core. */
function parse(tag) {
  const [, layer, name] = /^(?:layer(\d+)\/)?(.*)$/.exec(tag);
  return { layer: layer === undefined ? -1 : Number(layer), name };
}

function layerColour(layer) {
  return layer < 0 ? "value" : `layer-${layer % LAYERS}`;
}
