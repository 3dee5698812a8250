// One game of one side: its picture, its numbers, and what the policy thinks.

import { barChart, heatMap, short, timeChart } from "./charts.js";

/** A new element with properties, attributes (aria-*, role, data-*) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const SIGNS = { LEFT: "←", RIGHT: "→", UP: "↑", DOWN: "↓" };
const DIAGONALS = { "left+down": "↙", "left+up": "↖", "right+down": "↘", "right+up": "↗", none: "·" };
const KEYBOARD = [["Q", 1, 1], ["W", 2, 1], ["E", 3, 1], ["A", 1, 2], ["S", 2, 2], ["D", 3, 2], ["UP", 6, 1], ["LEFT", 5, 2], ["DOWN", 6, 2], ["RIGHT", 7, 2]];
const LAYERS = 4; // colours of layers

export function actionSign(action) {
  return DIAGONALS[action.name] ?? SIGNS[action.keys[0]] ?? action.keys[0];
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
   * @param {{side: number, game: number, name: string, letter: string, onOpen: Function}} place
   *   letter is "" where there is only one side.
   */
  constructor({ side, game, name, letter, onOpen }) {
    this.side = side;
    this.game = game;
    this.entries = [];
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
    this.keys = new Map();
    const keyboard = make("div", { className: "keys", role: "img", "aria-label": "keys pressed" });
    for (const [key, column, row] of KEYBOARD) {
      const cap = make("span", { className: "key", textContent: SIGNS[key] ?? key });
      cap.style.gridColumn = column;
      cap.style.gridRow = row;
      this.keys.set(key, cap);
      keyboard.append(cap);
    }
    this.keyboard = keyboard;
    this.chart = panel("chart", "value and reward over time");
    this.actions = panel("bars", "probabilities of the actions");
    this.norms = panel("chart", "norm of the weight shift of each layer over time");
    this.rates = panel("bars", "self-generated rates");
    this.heat = panel("heat", "heat map of the weight shift");
    this.blocks = make("div", { className: "blocks", "aria-hidden": "true" });
    this.heat.figure.append(this.blocks);
    const panels = [this.chart, this.actions, this.norms].map((one) => one.figure);
    panels.push(make("div", { className: "pair" }, this.rates.figure, this.heat.figure));
    this.element = make(
      "div",
      { className: `tile side-${side}` },
      make(
        "div",
        { className: "tile-body" },
        make("div", { className: "picture" }, this.shot, list, make("div", { className: "facts" }, keyboard, this.tally)),
        make("div", { className: "panels" }, ...panels),
      ),
    );
  }

  add(tick, numbers) {
    this.entries.push({ tick, ...numbers });
    if (this.entries.length > 6000) this.entries.splice(0, 2000);
  }

  /** Paints the picture in `blob`. */
  async show(blob) {
    const bitmap = await createImageBitmap(blob);
    if (this.canvas.width !== bitmap.width) [this.canvas.width, this.canvas.height] = [bitmap.width, bitmap.height];
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.shot.classList.toggle("eye", bitmap.width === 64);
    bitmap.close();
  }

  setWeights(weights) {
    if (this.weights?.name !== weights.name || this.weights?.head !== weights.head) this.scale = 0;
    this.weights = weights;
  }

  clearWeights() {
    this.weights = null;
  }

  /** Brings numbers and drawings to the step `tick`. */
  draw(tick, state) {
    const cursor = indexAt(this.entries, tick);
    if (cursor < 0) return;
    const now = this.entries[cursor];
    const about = state.sides[this.side];
    const { numbers } = this;
    numbers.return.textContent = short(now.return);
    numbers.value.textContent = now.value.toFixed(2);
    numbers.step.textContent = now.step;
    const past = now.episodes ? `last ${short(now.last)}, mean ${now.mean.toFixed(1)} of ${now.episodes}` : "first episode";
    if (this.tally.textContent !== past) this.tally.textContent = past;
    const action = state.actions[now.action];
    for (const [key, cap] of this.keys) cap.classList.toggle("down", action.keys.includes(key));
    this.keyboard.setAttribute("aria-label", `keys pressed: ${action.keys.join(" ") || "none"}`);
    const waiting = now.ended && tick > now.tick;
    this.shot.classList.toggle("waiting", waiting);
    this.over.hidden = !now.ended;
    if (now.ended) {
      const how = now.complete ? "level completed" : "episode ended";
      this.over.textContent = `${how}, return ${short(now.final)}${waiting ? ", waiting" : ""}`;
    }

    this.chart.label("value", now.value.toFixed(2), "reward", short(now.reward));
    timeChart(this.chart.canvas, this.entries, cursor, {
      lines: [{ get: (entry) => entry.value, colour: "value" }],
      bars: [{ get: (entry) => entry.reward, colours: ["gain", "loss"] }],
      zero: false,
    });
    this.actions.label("action", action.name === "none" ? "no key" : `${actionSign(action)} ${action.keys.length > 1 || SIGNS[action.keys[0]] ? action.name : ""}`);
    const bars = now.probabilities.map((value, index) => ({ value, label: actionSign(state.actions[index]), colour: "bar", group: 0 }));
    barChart(this.actions.canvas, bars, now.action);
    this.drawReadings(now, cursor, about);
    this.drawWeights(about);
  }

  drawReadings(now, cursor, about) {
    const [norms, written, rates] = ["norm", "written", "rate"].map((kind) => Object.keys(now.readings[kind]));
    this.norms.figure.hidden = !norms.length;
    this.rates.figure.hidden = !rates.length;
    if (norms.length) {
      this.norms.label("‖Wₜ − W₀‖", "", norms.length > 1 ? "by layer" : "", norms.map((name) => short(now.readings.norm[name])).join("  "));
      timeChart(this.norms.canvas, this.entries, cursor, {
        lines: norms.map((name, index) => ({ get: (entry) => entry.readings.norm[name], colour: `layer-${index % LAYERS}` })),
        bars: [{ get: (entry) => written.reduce((sum, name) => sum + (entry.readings.written[name] ?? 0), 0), colours: ["write", "write"] }],
        zero: true,
      });
    }
    if (rates.length) {
      this.rates.label(about.intervention.kind === "frozen" ? "rates (not applied)" : "rates", "");
      const layers = [...new Set(rates.map(layerOf))];
      barChart(
        this.rates.canvas,
        rates.map((name) => ({
          value: now.readings.rate[name],
          label: rateSign(name),
          colour: `layer-${layers.indexOf(layerOf(name)) % LAYERS}`,
          group: layerOf(name),
        })),
      );
    }
  }

  drawWeights(about) {
    const { weights } = this;
    this.heat.figure.hidden = !weights;
    if (!weights) return;
    const strongest = weights.values.reduce((best, value) => Math.max(best, Math.abs(value)), 0);
    // The scale follows at once upwards and slowly downwards, so that colours can be compared from step to step.
    this.scale = Math.max(strongest, this.scale * 0.995);
    heatMap(this.heat.canvas, weights.values, weights.rows, weights.columns, this.scale);
    // A few pixels for each cell, at least: a matrix of four columns is not stretched over the whole width.
    this.heat.canvas.style.aspectRatio = `${weights.columns} / ${weights.rows}`;
    this.heat.label("Wₜ − W₀", "", "", `±${short(this.scale)}`);
    this.heat.canvas.setAttribute("aria-label", `heat map of ${weights.name}, head ${weights.head}`);
    const facts = about.weights.find((one) => one.name === weights.name);
    if (facts && this.blocks.dataset.name !== weights.name) {
      this.blocks.dataset.name = weights.name;
      this.blocks.replaceChildren(
        ...facts.blocks.map(([label, columns]) => {
          const block = make("span", { textContent: label });
          block.style.flex = `${columns} 0 0`;
          return block;
        }),
      );
    }
  }
}

function panel(kind, description) {
  const canvas = make("canvas", { className: kind, role: "img", "aria-label": description });
  const caption = make("figcaption");
  let shown = "";
  return {
    canvas,
    figure: make("figure", {}, caption, canvas),
    /** Words and numbers in turn; the numbers stand out. */
    label(...words) {
      const text = words.join("|");
      if (text === shown) return;
      shown = text;
      const parts = [];
      for (let index = 0; index < words.length; index += 2) {
        const part = make("span", { textContent: words[index] ? `${words[index]} ` : "" });
        if (words[index + 1] !== "") part.append(make("b", { textContent: words[index + 1] }));
        parts.push(part);
      }
      caption.replaceChildren(...parts);
    },
  };
}

function layerOf(name) {
  return name.split("/")[0].replace("layer", "layer ");
}

const RATE_SIGNS = { rate_y: "y", rate_q: "q", rate_k: "k", rate_beta: "β", rate: "β" };

function rateSign(name) {
  const last = name.split("/").pop();
  return RATE_SIGNS[last] ?? last.replace(/^rate_?/, "");
}
