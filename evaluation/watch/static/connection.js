// The WebSocket: JSON in both directions, and binary updates from the server.

const decoder = new TextDecoder();

/**
 * Keeps a connection to the server and tries again when it is lost.
 *
 * @param {{state: Function, update: Function, error: Function, status: Function}} handlers
 *   state(object), update(header, pictures, weights), error(text), status(connected, text).
 * @returns {{send: Function}} send(message) returns whether it could be sent.
 */
export function connect(handlers) {
  let socket = null;
  let delay = 500;

  function open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}/session`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      delay = 500;
      handlers.status(true, "connected");
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        const message = JSON.parse(event.data);
        (message.type === "error" ? handlers.error : handlers.state)(message.type === "error" ? message.message : message);
      } else {
        handlers.update(...unpack(event.data));
      }
    };
    socket.onclose = () => {
      handlers.status(false, "disconnected: is the command still running?");
      setTimeout(open, delay);
      delay = Math.min(delay * 2, 8000);
    };
  }

  open();
  return {
    send(message) {
      if (socket.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(message));
      return true;
    },
  };
}

/** Header, pictures and weights of a binary update: see Update.message on the server. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  const take = (bytes) => buffer.slice(offset, (offset += bytes));
  const pictures = header.pictures.map((entry) => ({ ...entry, data: take(entry.bytes) }));
  const weights = header.weights.map((entry) => ({
    ...entry,
    values: new Float32Array(take(4 * (entry.head < 0 ? entry.heads : 1) * entry.rows * entry.columns)),
  }));
  return [header, pictures, weights];
}
