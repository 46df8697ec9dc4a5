// The way to the run: one WebSocket that comes back by itself, and words that are posted. Knows what travels, not what
// it means.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
// The view comes once a second: without anything for so long nobody is there, whatever the socket says.
const SILENT_MS = 6_000;

/**
 * `hears.view(view)`, `hears.signal(signal)`, `hears.picture(frame, jpeg)`, `hears.result(frame, captured)` and
 * `hears.packet(source, packet, data)`: what comes; `jpeg` its bytes, `captured` tells which packet the frame is of.
 * `hears.heat(line, bytes)`: a heat map, see docs/serving.md.
 * `hears.away(away)`: null while connected, else {sinceUnix, retryAt, problem}; retryAt by performance.now().
 */
export class Connection {
  #hears;
  #socket = null;
  #waitMs = FIRST_WAIT_MS;
  #timer = 0;
  #heardAt = 0;
  #away = { sinceUnix: Date.now() / 1000, retryAt: 0, problem: "" };
  #pictures = new Map();
  #heat = new Map();
  #packets = [];

  constructor(hears) {
    this.#hears = hears;
    window.addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#checkSilence());
    setInterval(() => this.#checkSilence(), 1000);
    this.#open();
  }

  /** At once, where it is waiting to. */
  retry() {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#waitMs = FIRST_WAIT_MS;
    this.#open();
  }

  /**
   * What is wanted from now on: pictures, a Map of widths in device pixels by source; of which class the heat map, by
   * source; and the packets and results of sources. Told again after a return.
   */
  look(pictures, heat = new Map(), packets = []) {
    [this.#pictures, this.#heat, this.#packets] = [new Map(pictures), new Map(heat), packets];
    this.#say({ type: "look", pictures: Object.fromEntries(pictures), heat: Object.fromEntries(heat), packets });
  }

  /** This picture, and with it each before, gives its credit back. `of`: "picture" or "packets". */
  shown(source, seq, of = "picture") {
    this.#say({ type: "shown", source, seq, of });
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #open() {
    const address = new URL("/live", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    this.#heardAt = performance.now();
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => this.look(this.#pictures, this.#heat, this.#packets));
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#hear(data));
    socket.addEventListener("close", ({ reason }) => socket === this.#socket && this.#lose(reason));
  }

  #hear(data) {
    this.#heardAt = performance.now();
    if (this.#away) {
      this.#away = null;
      this.#waitMs = FIRST_WAIT_MS;
      this.#hears.away(null);
    }
    if (typeof data !== "string") return this.#hearBinary(data);
    const message = JSON.parse(data);
    if (message.type === "view") this.#hears.view(message);
    else if (message.type === "result") this.#hears.result(message.frame, message.captured);
    else if (message.kind === "signal") this.#hears.signal(message);
  }

  #hearBinary(buffer) {
    const [head, data] = parts(buffer);
    if (head.kind === "heat") return this.#hears.heat(head, data);
    if (head.kind !== "packet") return this.#hears.picture(head, data);
    const { source, packet } = head;
    this.#hears.packet(source, packet, data);
    this.#say({ type: "taken", source, captured: packet.captured });
  }

  #checkSilence() {
    if (!this.#socket || performance.now() - this.#heardAt < SILENT_MS) return;
    const silent = this.#socket;
    this.#lose("");
    silent.close();
  }

  /** `reason`: what the run said when it left. */
  async #lose(reason) {
    this.#socket = null;
    const jitter = 0.75 + Math.random() / 2;
    const retryAt = performance.now() + this.#waitMs * jitter;
    const { sinceUnix = Date.now() / 1000, problem: before = "" } = this.#away ?? {};
    this.#away = { sinceUnix, retryAt, problem: reason ? `It said: ${reason}.` : before };
    this.#timer = setTimeout(() => this.#open(), this.#waitMs * jitter);
    this.#waitMs = Math.min(this.#waitMs * 1.7, LONGEST_WAIT_MS);
    this.#hears.away(this.#away);
    const problem = await refusal();
    if (!this.#away || !problem) return;
    this.#away = { ...this.#away, problem };
    this.#hears.away(this.#away);
  }
}

/** [head, data] of a binary message: 4 bytes length of a JSON text, the text, what it is about. */
function parts(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return [JSON.parse(text), new Uint8Array(buffer, 4 + length)];
}

/** A WebSocket does not tell why it was refused; the view at its own address does. */
async function refusal() {
  try {
    const { status } = await fetch("/view", { cache: "no-store" });
    return status === 401 || status === 403 ? "It wants its token: open the page by its whole address again." : "";
  } catch {
    return "";
  }
}

/** Says one word of control to the run. The answer's text; throws an Error with the run's own line where it refuses. */
export async function say(word) {
  let answer;
  try {
    const body = JSON.stringify(word);
    answer = await fetch("/words", { method: "POST", headers: { "content-type": "application/json" }, body });
  } catch {
    throw new Error("No connection to the run; nothing was changed as far as is known here.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `The run answered ${answer.status} ${answer.statusText}.`);
  return told.text ?? "";
}
