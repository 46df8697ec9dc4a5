// The newest picture of one source on a canvas, and what was found in it on another above: drawn together, so that they
// always belong together. Decodes one JPEG at a time and skips to the newest. Knows no connection.

import { drawObjects, Trails } from "./boxes.js";
import { element } from "./elements.js";
import { fit, watchSize } from "./fit.js";
import { drawLayout } from "./zones.js";

const JPEG = { type: "image/jpeg" };
const dirty = new Set();
let isAsked = false;

/** All pictures that changed are drawn before the next paint, in one go; while nobody sees the page, not at all. */
function drawSoon(picture) {
  dirty.add(picture);
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => {
    isAsked = false;
    const changed = [...dirty];
    dirty.clear();
    for (const each of changed) each.draw();
  });
}

/** A VideoFrame where the browser has such a decoder, which takes the bytes as they are; else an ImageBitmap. */
async function decoded(jpeg) {
  if (!window.ImageDecoder) return createImageBitmap(new Blob([jpeg], JPEG));
  const decoder = new ImageDecoder({ data: jpeg, ...JPEG });
  try {
    return (await decoder.decode()).image;
  } finally {
    decoder.close();
  }
}

/**
 * `node` is the element to show; `frame` is the one that is on it, since `shownAt` by performance.now(). How it came is
 * the node's `data-path`: "jpeg" or "webcodecs".
 */
export class Picture {
  frame = null;
  shownAt = -Infinity;
  // Zones and lines are shown whatever the options say.
  isEdited = false;
  // What is drawn between the picture and the boxes, as of heat.js.
  heat = null;
  #layout = null;
  #bitmap = null;
  #next = null;
  #waiting = null;
  #isDecoding = false;
  #isClosed = false;
  #trails = new Trails();
  #options;
  #size;

  constructor(options) {
    this.#options = options;
    this.pixels = element("canvas", { class: "pixels", "aria-hidden": "true" });
    this.boxes = element("canvas", { class: "boxes", "aria-hidden": "true" });
    this.node = element("div", { class: "picture" }, this.pixels, this.boxes);
    this.#size = watchSize(this.node, (width, height) => this.#resize(width, height));
  }

  /**
   * `frame` as in docs/json-lines.md, `jpeg` the bytes of its picture. `onShown()` once it is on the screen, or cannot
   * be read; never where a newer one took its place.
   */
  take(frame, jpeg, onShown = () => {}) {
    this.#waiting = { frame, jpeg, onShown };
    if (!this.#isDecoding) this.#decode();
  }

  /** The same of a picture that is decoded: a VideoFrame, which is closed here. */
  show(frame, bitmap, onShown) {
    this.#put({ frame, bitmap, onShown, path: "webcodecs" });
  }

  /** The zones and lines of the source, by name. */
  set layout(layout) {
    this.#layout = layout;
    drawSoon(this);
  }

  /** What is drawn has changed, or the options have. */
  redraw() {
    drawSoon(this);
  }

  close() {
    this.#isClosed = true;
    this.#size.disconnect();
    dirty.delete(this);
    this.#bitmap?.close();
    this.#next?.bitmap.close();
    this.#bitmap = this.#next = this.#waiting = null;
    // Chromium keeps the memory of a canvas until much later.
    for (const canvas of [this.pixels, this.boxes]) canvas.width = canvas.height = 0;
  }

  async #decode() {
    this.#isDecoding = true;
    while (this.#waiting) {
      const { frame, jpeg, onShown } = this.#waiting;
      this.#waiting = null;
      const bitmap = await decoded(jpeg).catch(() => null);
      if (this.#isClosed) bitmap?.close();
      else if (bitmap) this.#put({ frame, bitmap, onShown, path: "jpeg" });
      else onShown();
    }
    this.#isDecoding = false;
  }

  #put(next) {
    this.#next?.bitmap.close();
    this.#next = next;
    this.#trails.add(next.frame);
    // At once, while the browser waits for its next paint: drawn just before, it would often miss that one.
    if (document.hidden) drawSoon(this);
    else this.draw();
  }

  #resize(width, height) {
    for (const canvas of [this.pixels, this.boxes]) {
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    this.draw();
  }

  draw() {
    const next = this.#next;
    if (next) {
      this.#bitmap?.close();
      [this.#bitmap, this.frame, this.#next] = [next.bitmap, next.frame, null];
      this.shownAt = performance.now();
      this.node.dataset.path = next.path;
    }
    if (this.#bitmap && this.pixels.width && this.pixels.height) this.#drawNow();
    if (next) requestAnimationFrame(() => next.onShown());
  }

  #drawNow() {
    const { width, height } = this.pixels;
    const place = fit(this.frame.width, this.frame.height, width, height);
    const pixels = this.pixels.getContext("2d", { alpha: false });
    pixels.imageSmoothingQuality = "medium";
    pixels.clearRect(0, 0, width, height);
    pixels.drawImage(this.#bitmap, place.left, place.top, place.width, place.height);
    this.heat?.draw(this.frame, place, width, height);
    const boxes = this.boxes.getContext("2d");
    boxes.clearRect(0, 0, width, height);
    if (this.#layout && (this.#options.zones || this.isEdited))
      drawLayout(boxes, this.#layout, this.frame, place, window.devicePixelRatio);
    drawObjects(boxes, this.frame, this.#trails, place, window.devicePixelRatio, this.#options);
    this.node.dataset.seq = this.frame.seq;
  }
}
