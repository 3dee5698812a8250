// Saving the moment that is shown, and coming back to it: files, a link, and playing on from there.

import { fill } from "./controls.js";

const $ = (id) => document.getElementById(id);

export class Moments {
  /** @param send sends a message; @param say shows a text. */
  constructor(send, say) {
    this.send = send;
    this.say = say;
    this.tick = 0;
    $("save-menu").addEventListener("toggle", () => this.open());
    for (const id of ["save-game", "save-side"]) $(id).addEventListener("change", () => this.address());
    for (const id of ["save-png", "save-npz", "save-session"]) $(id).addEventListener("click", () => this.keep());
    $("save-link").addEventListener("click", () => this.copyLink());
    $("go-back").addEventListener("click", () => this.goBack());
  }

  /** The state of the session and the step that the page shows. */
  update(state, tick) {
    this.state = state;
    this.shown = tick;
  }

  /** What is saved is what was shown when the menu was opened. */
  open() {
    if (!$("save-menu").open || !this.state) return;
    this.tick = this.shown;
    const { state } = this;
    $("save-what").textContent = state.looking === null ? "The moment at which you opened this" : "The moment that is shown";
    const games = state.games.map((name, game) => [String(game), name]);
    fill($("save-game"), games, state.view.game >= 0 ? String(state.view.game) : $("save-game").value || "0");
    fill($("save-side"), state.sides.map((_, side) => [String(side), `side ${"AB"[side]}`]), $("save-side").value || "0");
    $("save-side").hidden = state.sides.length < 2;
    $("link").hidden = true;
    this.address();
  }

  address() {
    const { weights, head } = this.state.view;
    const query = new URLSearchParams({ tick: this.tick, game: $("save-game").value, side: $("save-side").value || 0, weights, head });
    $("save-png").href = `moment.png?${query}`;
    $("save-npz").href = `moment.npz?${query}`;
    $("save-session").href = `session.moment?tick=${this.tick}`;
  }

  keep() {
    this.send({ type: "keep", tick: this.tick });
  }

  copyLink() {
    this.keep();
    const { game, weights, head, eye } = this.state.view;
    const link = new URL(location.href);
    link.hash = new URLSearchParams({ moment: this.tick, game, weights, head, eye: Number(eye) });
    $("link").value = link.href;
    $("link").hidden = false;
    $("link").select();
    const copied = navigator.clipboard?.writeText(link.href);
    (copied ?? Promise.reject()).then(() => this.say("Link copied. It works for as long as this session lives."), () => {});
  }

  goBack() {
    $("save-menu").open = false;
    this.send({ type: "go_back", tick: this.shown });
    this.send({ type: "play", playing: true });
  }

  /** Shows what a link to a moment names, once. */
  follow(hash) {
    const link = new URLSearchParams(hash.slice(1));
    if (!link.has("moment")) return;
    const [moment, game, head] = ["moment", "game", "head"].map((name) => Number(link.get(name)));
    this.send({ type: "view", game, eye: link.get("eye") === "1" });
    if (link.get("weights")) this.send({ type: "view", weights: link.get("weights"), head });
    this.send({ type: "look", tick: moment });
  }
}
