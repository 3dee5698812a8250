// What two sides of a game differ in: side A minus side B.

import { barChart, heatMap, short, timeChart } from "./charts.js";
import { make, panel } from "./panels.js";
import { actionSign, indexAt, magnitude } from "./tile.js";

const WHY = {
  value: "Value of A minus value of B, step by step. They see different pictures as soon as they act differently.",
  actions: "How much more likely A makes each action than B, in percent points.",
  heat: "Weights of A minus weights of B, entry by entry: Wₜ − W₀ of one minus that of the other.",
};

export class Difference {
  constructor() {
    this.value = panel("chart", "value of A minus value of B over time", WHY.value);
    this.actions = panel("bars", "probabilities of A minus those of B", WHY.actions);
    this.heat = panel("heat", "weights of A minus weights of B", WHY.heat);
    this.element = make("div", { className: "difference", role: "group", "aria-label": "A minus B" }, this.value.figure, this.actions.figure, this.heat.figure);
    this.pairs = [];
  }

  /** @param {[Tile, Tile]} tiles of both sides. */
  draw([a, b], tick, state) {
    const [one, two] = [a.at(tick), b.at(tick)];
    if (!one || !two) return;
    const pairs = this.pairUp(a.entries, b.entries);
    this.value.label(["value A − B", signed((one.value ?? 0) - (two.value ?? 0)), "value"]);
    timeChart(this.value.canvas, pairs, indexAt(pairs, tick), { lines: [{ get: (pair) => pair.value, colour: "value" }], bars: [], symmetric: true, least: 0.2 });
    const bars = one.probabilities.map((p, index) => {
      const value = p - two.probabilities[index];
      return { value, label: actionSign(state.actions[index]), colour: value < 0 ? "side-1" : "side-0", group: 0 };
    });
    const apart = bars.reduce((sum, { value }) => sum + Math.abs(value), 0) / 2;
    this.actions.label("actions A − B", ["apart by", `${(100 * apart).toFixed(0)} %`]);
    barChart(this.actions.canvas, bars, -1, { signed: true, scale: Math.max(0.1, ...bars.map(({ value }) => Math.abs(value))) });
    this.drawWeights(a.weights, b.weights);
  }

  /** Values of both sides at the steps that both have played. */
  pairUp(first, second) {
    const from = Math.max(0, first.length - 1500);
    const pairs = [];
    let other = indexAt(second, first[from]?.tick ?? 0);
    for (const entry of first.slice(from)) {
      while (other + 1 < second.length && second[other + 1].tick <= entry.tick) other++;
      const match = second[other];
      if (match?.tick !== entry.tick) continue;
      pairs.push({ tick: entry.tick, start: entry.start, cut: entry.cut, value: entry.value === null || match.value === null ? null : entry.value - match.value });
    }
    return pairs;
  }

  drawWeights(one, two) {
    const same = one && two && one.name === two.name && one.head === two.head && one.values.length === two.values.length;
    this.heat.figure.hidden = !same;
    if (!same) return;
    const values = one.values.map((value, index) => value - two.values[index]);
    const strongest = magnitude(values);
    this.heat.canvas.style.aspectRatio = String(heatMap(this.heat.canvas, values, one, strongest));
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    this.heat.label("W of A − W of B", ["norm", short(norm)], ["", `±${short(strongest)}`]);
  }
}

function signed(value) {
  return `${value <= -0.005 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}
