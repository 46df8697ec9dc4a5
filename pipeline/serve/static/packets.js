// What a camera itself sends, decoded here: each picture waits for what was found in it, by the moment that both were
// captured. Knows no connection and no canvas.

// Pictures that are decoded and wait: a decoder's memory for them may be small.
const AHEAD = 6;
const MOST_WAITING = 250;
// Results without a picture of theirs for so long: no packets come, or none that decode.
const VAIN_MS = 1_000;

/**
 * Of one source. `onPicture(frame, picture)`: a VideoFrame, to be closed by who takes it, and its frame as in
 * docs/json-lines.md. `onChange()`: `isWanted` or `flows` is another.
 */
export class Packets {
  /** Whether packets are to be asked for: never again once they did not decode. */
  isWanted = "VideoDecoder" in window;
  /** Whether pictures of them are shown: until then others are to be. */
  flows = false;
  #onPicture;
  #onChange;
  #decoder = null;
  #codec = "";
  #needsKey = true;
  #chunks = [];
  #pictures = [];
  #frames = new Map();
  #heard = -Infinity;
  #vainSince = null;

  constructor(onPicture, onChange) {
    this.#onPicture = onPicture;
    this.#onChange = onChange;
  }

  /** The next one; those that follow need it. */
  take({ codec, is_key: isKey, captured }, data) {
    if (!this.isWanted || (this.#needsKey && !isKey)) return;
    // Behind, or full: a key frame needs none of those before it.
    const isLate = this.#chunks.length > 0 && this.#chunks[0].timestamp <= this.#heard;
    if (isKey && isLate) this.#chunks = [];
    this.#needsKey = this.#chunks.length >= MOST_WAITING;
    if (this.#needsKey) return;
    try {
      if (codec !== this.#codec) this.#configure(codec);
      this.#chunks.push(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp: captured, data }));
      this.#feed();
    } catch {
      this.#fail();
    }
  }

  /** What became of the frame that was captured then; frames come in their order, each once. */
  hear(frame, captured) {
    if (!this.isWanted) return;
    this.#heard = captured;
    if (frame.status !== "dropped") this.#frames.set(captured, frame);
    if (this.#frames.size > MOST_WAITING) this.#frames.delete(this.#frames.keys().next().value);
    this.#join();
    this.#look(frame.status !== "dropped");
  }

  close() {
    this.isWanted = this.flows = false;
    for (const picture of this.#pictures.splice(0)) picture.close();
    this.#chunks = [];
    this.#frames.clear();
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = null;
  }

  #configure(codec) {
    this.#decoder ??= new VideoDecoder({ output: (picture) => this.#put(picture), error: () => this.#fail() });
    // So Chromium holds no picture back, also where the parameter sets do not say that none is reordered.
    this.#decoder.configure({ codec, optimizeForLatency: true });
    this.#codec = codec;
    this.#chunks = [];
  }

  #feed() {
    while (this.#chunks.length && this.#decoder.decodeQueueSize + this.#pictures.length < AHEAD)
      this.#decoder.decode(this.#chunks.shift());
  }

  #put(picture) {
    if (!this.isWanted) return picture.close();
    this.#pictures.push(picture);
    this.#join();
  }

  /** The newest picture whose frame is there is shown; what will have none any more is let go. */
  #join() {
    let joined = null;
    const waiting = [];
    for (const picture of this.#pictures) {
      const frame = this.#frames.get(picture.timestamp);
      if (!frame && picture.timestamp > this.#heard) {
        waiting.push(picture);
        continue;
      }
      if (frame) joined?.picture.close();
      if (frame) joined = { frame, picture };
      else picture.close();
    }
    const newest = this.#pictures.at(-1)?.timestamp ?? -Infinity;
    for (const captured of this.#frames.keys()) if (captured <= newest) this.#frames.delete(captured);
    this.#pictures = waiting;
    if (joined) this.#show(joined);
    this.#feed();
  }

  #show({ frame, picture }) {
    this.#vainSince = null;
    this.#onPicture(frame, picture);
    if (this.flows) return;
    this.flows = true;
    this.#onChange();
  }

  /** Whether results come in vain. */
  #look(isResult) {
    if (!this.flows || !isResult) return;
    this.#vainSince ??= performance.now();
    if (performance.now() - this.#vainSince < VAIN_MS) return;
    this.flows = false;
    this.#vainSince = null;
    this.#onChange();
  }

  #fail() {
    if (!this.isWanted) return;
    this.close();
    this.#onChange();
  }
}
