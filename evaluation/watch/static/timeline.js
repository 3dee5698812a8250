// The bar at the bottom: looking back, and returning to the present.

import { colour, context } from "./charts.js";
import { indexAt } from "./tile.js";

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
    this.waiting = null;
    this.range.addEventListener("input", () => this.look(Number(this.range.value)));
    this.live.addEventListener("click", () => this.send({ type: "play", playing: true }));
    document.getElementById("episode-start").addEventListener("click", () => this.toEpisodeStart());
  }

  look(tick) {
    const target = Math.min(this.last, Math.max(this.first, tick));
    this.tick = target;
    // The server answers every look: one at a time is enough while the handle is dragged.
    if (this.waiting !== null) {
      this.waiting = target;
      return;
    }
    this.waiting = target;
    requestAnimationFrame(() => {
      this.send({ type: "look", tick: Math.max(this.first, this.waiting) });
      this.waiting = null;
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
    if (this.waiting === null) this.tick = header.tick;
    this.range.min = this.first;
    this.range.max = this.last;
    if (document.activeElement !== this.range || this.waiting === null) this.range.value = this.tick;
    const back = this.last - this.tick;
    this.when.textContent = back ? `step ${this.tick}, ${back} back` : `step ${this.tick}`;
    this.range.setAttribute("aria-valuetext", this.when.textContent);
    this.live.setAttribute("aria-pressed", String(state.playing && state.looking === null));
    this.drawMarks(tiles);
  }

  drawMarks(tiles) {
    const place = context(this.marks);
    if (!place) return;
    const { ctx, width, height } = place;
    const span = Math.max(1, this.last - this.first), handle = 16;
    ctx.fillStyle = colour("mark");
    for (const tile of tiles) {
      for (const entry of tile.entries) {
        if (!entry.start || entry.tick < this.first) continue;
        const x = handle / 2 + ((entry.tick - this.first) / span) * (width - handle);
        ctx.fillRect(Math.round(x) - 1, height - 6, 2, 5);
      }
    }
  }
}
