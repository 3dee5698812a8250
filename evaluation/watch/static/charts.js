// Small drawings on canvases. Colours come from the style sheet, so that they follow light and dark.

const colours = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => {
  colours.clear();
  table = null;
  redraw.forEach((draw) => draw());
});
const redraw = new Set();
const FONT = "10px system-ui, sans-serif";
const GUTTER = 34; // pixels for the labels of an axis

/** Calls `draw` when the colours have changed. */
export function onNewColours(draw) {
  redraw.add(draw);
}

export function colour(name) {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return colours.get(name);
}

// Sizes are asked for once for each layout: the browser would have to lay the page out again and again.
const sizes = new WeakMap();
const watcher = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) sizes.set(target, [contentRect.width, contentRect.height]);
  redraw.forEach((draw) => draw());
});

/** The 2D context of a canvas that is as sharp as the screen; null while it is not shown. */
export function context(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, [canvas.clientWidth, canvas.clientHeight]);
    watcher.observe(canvas);
  }
  const ratio = devicePixelRatio || 1;
  const [width, height] = sizes.get(canvas);
  if (!width || !height) return null;
  const wide = Math.round(width * ratio), high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height };
}

/**
 * An axis whose ends are round numbers, never closer than `least`: noise stays small beside what matters.
 *
 * @returns {{low: number, high: number, label: Function}} label(end) is a text, another one for each end.
 */
export function axisOf(low, high, least) {
  if (high - low < least) {
    const middle = (low + high) / 2;
    [low, high] = low >= 0 && middle < least / 2 ? [0, least] : [middle - least / 2, middle + least / 2];
  }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ends = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const largest = Math.max(...ends.map(Math.abs));
  const powers = (largest >= 1e5 || digits > 4) && 10 * step > largest;
  return { low: ends[0], high: ends[1], label: (end) => (powers && end ? end.toExponential(1) : end.toFixed(digits)) };
}

/**
 * Lines over the steps of a tile.
 *
 * @param canvas where to draw.
 * @param {Array} entries one for each step; those with `start` begin an episode, those with `cut` follow on no other.
 * @param {number} cursor index of the step that is shown.
 * @param {{lines: {get: Function, colour: string}[], bars: {get: Function, colours: string[]}[], zero: boolean,
 *   symmetric: boolean, least: number}} what bars have a scale of their own and stand in the lower part; colours are for
 *   above and below 0; `zero` says that 0 is on the axis, `symmetric` in its middle, `least` how long it is at least.
 */
export function timeChart(canvas, entries, cursor, what) {
  const place = context(canvas);
  if (!place) return;
  const { ctx, width: full, height } = place;
  const width = full - GUTTER;
  const count = Math.max(40, Math.floor(width / 1.6));
  const from = windowStart(entries.length, cursor, count);
  const shown = entries.slice(from, from + count);
  const x = (index) => GUTTER + ((index + 0.5) / count) * width;
  const pad = 3;
  drawStarts(ctx, shown, x, height);
  for (const bar of what.bars) drawBars(ctx, shown, bar, x, width / count, height);
  drawLines(ctx, shown, what, x, { full, height, pad });
  if (cursor < entries.length - 1 && cursor >= from) {
    ctx.strokeStyle = colour("accent");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(x(cursor - from), 0);
    ctx.lineTo(x(cursor - from), height);
    ctx.stroke();
  }
}

function drawStarts(ctx, shown, x, height) {
  ctx.strokeStyle = colour("mark");
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 3]);
  ctx.beginPath();
  shown.forEach((entry, index) => {
    if (!entry.start && !entry.cut) return;
    const at = Math.round(x(index)) - 0.5;
    ctx.moveTo(at, 0);
    ctx.lineTo(at, height);
  });
  ctx.stroke();
  ctx.setLineDash([]);
}

function drawBars(ctx, shown, bar, x, pitch, height) {
  const values = shown.map(bar.get);
  const top = values.reduce((best, value) => Math.max(best, Math.abs(value ?? 0)), 0);
  if (!top) return;
  const thick = Math.max(1, pitch);
  for (const sign of [1, -1]) {
    ctx.fillStyle = colour(bar.colours[sign > 0 ? 0 : 1]);
    ctx.beginPath();
    values.forEach((value, index) => {
      if (!(value * sign > 0)) return;
      const tall = Math.max(2, (Math.abs(value) / top) * height * 0.42);
      ctx.rect(x(index) - thick / 2, height - tall, thick, tall);
    });
    ctx.fill();
  }
}

function drawLines(ctx, shown, what, x, { full, height, pad }) {
  let low = Infinity, high = -Infinity;
  for (const line of what.lines) {
    for (const entry of shown) {
      const value = line.get(entry);
      if (value == null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (high < low) return;
  if (what.symmetric) [low, high] = [-1, 1].map((sign) => sign * Math.max(-low, high, what.least / 2));
  if (what.zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const axis = axisOf(low, high, what.least);
  const y = (value) => height - pad - ((value - axis.low) / (axis.high - axis.low)) * (height - 2 * pad);
  ctx.strokeStyle = colour("grid");
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const level of new Set([axis.low, Math.min(axis.high, Math.max(axis.low, 0)), axis.high])) {
    ctx.moveTo(GUTTER, Math.round(y(level)) + 0.5);
    ctx.lineTo(full, Math.round(y(level)) + 0.5);
  }
  ctx.stroke();
  for (const line of what.lines) {
    ctx.strokeStyle = colour(line.colour);
    ctx.lineWidth = 1.6;
    ctx.lineJoin = "round";
    ctx.beginPath();
    let pen = false;
    shown.forEach((entry, index) => {
      const value = line.get(entry);
      if (value == null || entry.start || entry.cut) pen = false;
      if (value == null) return;
      if (pen) ctx.lineTo(x(index), y(value));
      else ctx.moveTo(x(index), y(value));
      pen = true;
    });
    ctx.stroke();
  }
  ctx.fillStyle = colour("dim");
  ctx.font = FONT;
  ctx.textAlign = "right";
  for (const [value, baseline, at] of [[axis.high, "top", 0], [axis.low, "bottom", height]]) {
    ctx.textBaseline = baseline;
    ctx.fillText(axis.label(value), GUTTER - 4, at);
  }
}

/** The first of `count` steps to be drawn, so that the one that is shown is among them. */
function windowStart(length, cursor, count) {
  const latest = Math.max(0, length - count);
  return Math.min(latest, Math.max(0, cursor - Math.floor(count * 0.7)));
}

/**
 * Upright bars with labels from 0 to 1, or around 0 where one is negative; `lit` is the index of one that stands out.
 * Where there is room, each bar's number stands above it.
 */
export function barChart(canvas, bars, lit = -1, { signed = false, scale = 1, number = percent } = {}) {
  const place = context(canvas);
  if (!place || !bars.length) return;
  const { ctx, width, height } = place;
  const gaps = bars.filter((bar, index) => index && bar.group !== bars[index - 1].group).length;
  const gap = gaps ? 10 : 0;
  const pitch = (width - gaps * gap) / bars.length;
  const numbers = pitch >= 22 && height >= 44;
  const label = 12, top = numbers ? 12 : 2, room = height - label - top;
  ctx.font = FONT;
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  const zero = signed ? top + room / 2 : top + room;
  const reach = signed ? room / 2 : room;
  let left = 0;
  bars.forEach((bar, index) => {
    if (index && bar.group !== bars[index - 1].group) left += gap;
    const wide = Math.min(pitch - 2, 34), at = left + (pitch - wide) / 2;
    ctx.fillStyle = colour("grid");
    ctx.fillRect(at, top, wide, room);
    const share = Math.max(-1, Math.min(1, (bar.value ?? 0) / scale));
    const tall = Math.max(Math.abs(share) > 0.004 ? 1 : 0, Math.abs(share) * reach);
    ctx.fillStyle = colour(index === lit ? "accent" : bar.colour);
    ctx.fillRect(at, share < 0 ? zero : zero - tall, wide, tall);
    ctx.fillStyle = colour("text");
    for (const head of bar.heads ?? []) ctx.fillRect(at + wide / 4, zero - Math.round(Math.min(1, (head ?? 0) / scale) * reach), wide / 2, 1);
    ctx.fillStyle = colour(index === lit ? "text" : "dim");
    ctx.fillText(bar.label, left + pitch / 2, height - 2);
    if (numbers) ctx.fillText(number(bar.value), left + pitch / 2, 9);
    left += pitch;
  });
}

/** A share of one as a number for a small place. */
export function percent(value) {
  if (value == null) return "–";
  const size = 100 * Math.abs(value), sign = value < 0 ? "−" : "";
  if (size < 0.05) return "0";
  return sign + (size < 0.95 ? size.toFixed(1).slice(1) : size.toFixed(0));
}

let table = null;

/** 511 colours from the most negative over zero to the most positive. */
function colourTable() {
  if (table) return table;
  const [negative, zero, positive] = ["negative", "zero", "positive"].map((name) => rgb(colour(name)));
  table = new Uint32Array(511);
  const bytes = new Uint8ClampedArray(table.buffer);
  for (let index = 0; index < 511; index++) {
    const share = (index - 255) / 255;
    const end = share < 0 ? negative : positive;
    // A root makes small changes visible.
    const weight = Math.sqrt(Math.abs(share));
    for (let part = 0; part < 3; part++) bytes[4 * index + part] = zero[part] + (end[part] - zero[part]) * weight;
    bytes[4 * index + 3] = 255;
  }
  return table;
}

function rgb(text) {
  const value = parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** Rows and columns in which so many heads of this shape are shown, as near to three times as wide as high as it goes. */
export function headGrid({ heads, rows, columns }) {
  let best = [heads, 1];
  for (let across = 1; across <= heads; across++) {
    const down = Math.ceil(heads / across);
    const off = ([y, x]) => Math.abs(Math.log((x * columns) / (y * rows) / 3)) + 0.2 * (x * y - heads);
    if (off([down, across]) < off(best)) best = [down, across];
  }
  return best;
}

/** Matrices as coloured cells, heads side by side; `scale` is the magnitude of the strongest colours. */
export function heatMap(canvas, values, shape, scale) {
  const { heads = 1, rows, columns } = shape;
  const [down, across] = headGrid({ heads, rows, columns });
  const wide = across * (columns + 1) - 1, high = down * (rows + 1) - 1;
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const picture = new ImageData(wide, high);
  const pixels = new Uint32Array(picture.data.buffer);
  const lookup = colourTable();
  const factor = scale > 0 ? 255 / scale : 0;
  let cell = 0;
  for (let head = 0; head < heads; head++) {
    const corner = Math.floor(head / across) * (rows + 1) * wide + (head % across) * (columns + 1);
    for (let row = 0; row < rows; row++) {
      const start = corner + row * wide;
      for (let column = 0; column < columns; column++) {
        pixels[start + column] = lookup[255 + Math.max(-255, Math.min(255, Math.round(values[cell++] * factor)))];
      }
    }
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return wide / high;
}

export function short(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size === 0 || Number.isInteger(value)) return String(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.01) return value.toFixed(2);
  return value.toExponential(1);
}
