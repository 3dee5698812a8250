// The bar at the bottom: looking back, and returning to the present.

import { colour, context } from "./charts.js";
import { indexAt } from "./tile.js";

const PATIENCE = 1500; // milliseconds

export class Timeline {
  constructor(send) {
    this.send = send;
    this.range = document.getElementById("timeline");
    this.marks = document.getElementById("marks");
    this.when = document.getElementById("when");
    this.live = document.getElementById("live");
    this.first = 0;
    this.last = 0;
    this.tick = 0;
    // Where to look has been asked for until the server shows it: further moves start from there.
    this.wanted = null;
    this.asked = 0;
    this.sending = false;
    this.range.addEventListener("input", () => this.look(Number(this.range.value)));
    this.live.addEventListener("click", () => this.send({ type: "play", playing: true }));
    document.getElementById("episode-start").addEventListener("click", () => this.toEpisodeStart());
  }

  look(tick) {
    this.wanted = this.tick = Math.min(this.last, Math.max(this.first, tick));
    this.asked = performance.now();
    // One message for each frame of the screen is enough while the handle is dragged.
    if (this.sending) return;
    this.sending = true;
    requestAnimationFrame(() => {
      this.sending = false;
      this.send({ type: "look", tick: Math.max(this.first, this.tick) });
    });
  }

  move(steps) {
    this.look(this.tick + steps);
  }

  toEpisodeStart() {
    const tile = this.tiles?.[0];
    if (!tile) return;
    for (let index = indexAt(tile.entries, this.tick - 1); index >= 0; index--) {
      if (tile.entries[index].start) return this.look(tile.entries[index].tick);
    }
    this.look(this.first);
  }

  /** Shows where in time the page is; `tiles` are those whose episodes are marked. */
  draw(header, state, tiles) {
    this.tiles = tiles;
    this.first = Math.max(1, header.first ?? 1);
    this.last = header.last;
    if (header.tick === this.wanted || performance.now() - this.asked > PATIENCE) this.wanted = null;
    if (this.wanted === null) this.tick = header.tick;
    this.range.min = this.first;
    this.range.max = this.last;
    this.range.value = this.tick;
    this.range.dataset.tick = this.tick;
    const back = this.last - this.tick;
    // Steps are counted from the starts of episodes alone; here it is how far back that matters.
    const text = back ? `${back} step${back > 1 ? "s" : ""} back` : state.playing ? "now" : "now, paused";
    if (this.when.textContent !== text) this.when.textContent = text;
    this.range.setAttribute("aria-valuetext", text);
    this.live.setAttribute("aria-pressed", String(state.playing && state.looking === null));
    this.drawMarks(tiles);
  }

  drawMarks(tiles) {
    const place = context(this.marks);
    if (!place) return;
    const { ctx, width, height } = place;
    const span = Math.max(1, this.last - this.first), handle = 16;
    ctx.fillStyle = colour("mark");
    const places = new Set();
    for (const { starts } of tiles) {
      for (const tick of starts) {
        if (tick >= this.first) places.add(Math.round(handle / 2 + ((tick - this.first) / span) * (width - handle)));
      }
    }
    for (const x of places) ctx.fillRect(x - 1, height - 6, 2, 5);
  }
}
