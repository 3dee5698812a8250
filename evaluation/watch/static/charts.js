// Small drawings on canvases. Colours come from the style sheet, so that they follow light and dark.

const colours = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => {
  colours.clear();
  table = null;
  redraw.forEach((draw) => draw());
});
const redraw = new Set();

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

/** The 2D context of a canvas that is as sharp as the screen; null while it is not shown. */
function context(canvas) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  const wide = Math.round(width * ratio), high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height };
}

/**
 * Lines over the steps of a tile.
 *
 * @param canvas where to draw.
 * @param {Array} entries one for each step; those with `start` begin an episode.
 * @param {number} cursor index of the step that is shown.
 * @param {{lines: {get: Function, colour: string}[], bars: {get: Function, colours: string[]}[], zero: boolean}} what
 *   bars have a scale of their own and stand in the lower part; colours are for above and below 0.
 */
export function timeChart(canvas, entries, cursor, what) {
  const place = context(canvas);
  if (!place) return;
  const { ctx, width, height } = place;
  const count = Math.max(60, Math.floor(width / 1.6));
  const from = windowStart(entries.length, cursor, count);
  const shown = entries.slice(from, from + count);
  const x = (index) => ((index + 0.5) / count) * width;
  const pad = 3;

  ctx.strokeStyle = colour("mark");
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 3]);
  ctx.beginPath();
  shown.forEach((entry, index) => {
    if (!entry.start) return;
    const at = Math.round(x(index)) - 0.5;
    ctx.moveTo(at, 0);
    ctx.lineTo(at, height);
  });
  ctx.stroke();
  ctx.setLineDash([]);

  for (const bar of what.bars) {
    const values = shown.map(bar.get);
    const top = values.reduce((best, value) => Math.max(best, Math.abs(value ?? 0)), 0);
    if (!top) continue;
    const thick = Math.max(1, width / count);
    values.forEach((value, index) => {
      if (!value) return;
      const tall = Math.max(2, (Math.abs(value) / top) * height * 0.42);
      ctx.fillStyle = colour(bar.colours[value > 0 ? 0 : 1]);
      ctx.fillRect(x(index) - thick / 2, height - tall, thick, tall);
    });
  }

  let low = Infinity, high = -Infinity;
  for (const line of what.lines) {
    for (const entry of shown) {
      const value = line.get(entry);
      if (value == null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (high >= low) {
    if (what.zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    if (high - low < 1e-6) [low, high] = [low - 0.5, high + 0.5];
    const y = (value) => height - pad - ((value - low) / (high - low)) * (height - 2 * pad);
    if (low < 0 && high > 0) {
      ctx.strokeStyle = colour("grid");
      ctx.beginPath();
      ctx.moveTo(0, y(0));
      ctx.lineTo(width, y(0));
      ctx.stroke();
    }
    for (const line of what.lines) {
      ctx.strokeStyle = colour(line.colour);
      ctx.lineWidth = 1.6;
      ctx.lineJoin = "round";
      ctx.beginPath();
      let pen = false;
      shown.forEach((entry, index) => {
        const value = line.get(entry);
        if (value == null || entry.start) pen = false;
        if (value == null) return;
        if (pen) ctx.lineTo(x(index), y(value));
        else ctx.moveTo(x(index), y(value));
        pen = true;
      });
      ctx.stroke();
    }
    ctx.fillStyle = colour("dim");
    ctx.strokeStyle = colour("card");
    ctx.lineWidth = 3;
    ctx.font = "10px system-ui, sans-serif";
    for (const [value, baseline, at] of [[high, "top", 1], [low, "bottom", height - 1]]) {
      ctx.textBaseline = baseline;
      ctx.strokeText(short(value), 2, at);
      ctx.fillText(short(value), 2, at);
    }
  }
  if (cursor < entries.length - 1 && cursor >= from) {
    ctx.strokeStyle = colour("accent");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(x(cursor - from), 0);
    ctx.lineTo(x(cursor - from), height);
    ctx.stroke();
  }
}

/** The first of `count` steps to be drawn, so that the one that is shown is among them. */
function windowStart(length, cursor, count) {
  const latest = Math.max(0, length - count);
  return Math.min(latest, Math.max(0, cursor - Math.floor(count * 0.7)));
}

/** Upright bars from 0 to 1 with labels; `lit` is the index of one that stands out. */
export function barChart(canvas, bars, lit = -1) {
  const place = context(canvas);
  if (!place || !bars.length) return;
  const { ctx, width, height } = place;
  const label = 12, top = 2, room = height - label - top;
  const gaps = bars.filter((bar, index) => index && bar.group !== bars[index - 1].group).length;
  const gap = gaps ? 10 : 0;
  const pitch = (width - gaps * gap) / bars.length;
  ctx.font = "10px system-ui, sans-serif";
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  let left = 0;
  bars.forEach((bar, index) => {
    if (index && bar.group !== bars[index - 1].group) left += gap;
    const wide = Math.min(pitch - 2, 34), at = left + (pitch - wide) / 2;
    ctx.fillStyle = colour("grid");
    ctx.fillRect(at, top, wide, room);
    const tall = Math.max(bar.value > 0.004 ? 1 : 0, bar.value * room);
    ctx.fillStyle = colour(index === lit ? "accent" : bar.colour);
    ctx.fillRect(at, top + room - tall, wide, tall);
    ctx.fillStyle = colour(index === lit ? "text" : "dim");
    ctx.fillText(bar.label, left + pitch / 2, height - 2);
    left += pitch;
  });
}

let table = null;

/** 511 colours from the most negative over zero to the most positive. */
function colourTable() {
  if (table) return table;
  const [negative, zero, positive] = ["negative", "zero", "positive"].map((name) => rgb(colour(name)));
  table = new Uint8ClampedArray(511 * 4);
  for (let index = 0; index < 511; index++) {
    const share = (index - 255) / 255;
    const end = share < 0 ? negative : positive;
    // A root makes small changes visible.
    const weight = Math.sqrt(Math.abs(share));
    for (let part = 0; part < 3; part++) table[4 * index + part] = zero[part] + (end[part] - zero[part]) * weight;
    table[4 * index + 3] = 255;
  }
  return table;
}

function rgb(text) {
  const value = parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** A matrix as coloured cells; `scale` is the magnitude of the strongest colours. */
export function heatMap(canvas, values, rows, columns, scale) {
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const picture = new ImageData(columns, rows);
  const lookup = colourTable();
  const factor = scale > 0 ? 255 / scale : 0;
  for (let cell = 0; cell < values.length; cell++) {
    const index = 4 * (255 + Math.max(-255, Math.min(255, Math.round(values[cell] * factor))));
    picture.data.set(lookup.subarray(index, index + 4), 4 * cell);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
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

export { context };
