// Playing oneself: the keys that are held go to the game, those of a finger on the screen too.

const GAME_KEYS = { ArrowLeft: "LEFT", ArrowRight: "RIGHT", ArrowUp: "UP", ArrowDown: "DOWN", q: "Q", w: "W", e: "E", a: "A", s: "S", d: "D" };

export class Hands {
  /** @param send sends a message. */
  constructor(send) {
    this.send = send;
    this.held = [];
    this.playing = false;
    addEventListener("blur", () => this.release());
  }

  /** Whether a person plays, as the server says. */
  set(playing) {
    if (this.playing === playing) return;
    this.playing = playing;
    this.held = [];
  }

  /** Takes a key event if it is for the game; returns whether it was. */
  take(event) {
    const key = GAME_KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!this.playing || !key) return false;
    this.press(key, event.type === "keydown");
    return true;
  }

  /** Presses a key or lets it go; returns whether a person plays. */
  press(key, down) {
    if (!this.playing) return false;
    if (down !== this.held.includes(key)) {
      this.held = down ? [...this.held, key] : this.held.filter((one) => one !== key);
      this.send({ type: "keys", keys: this.held });
    }
    return true;
  }

  release() {
    if (!this.playing || !this.held.length) return;
    this.held = [];
    this.send({ type: "keys", keys: [] });
  }
}
