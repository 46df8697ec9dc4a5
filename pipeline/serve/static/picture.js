// The newest picture of one source on a canvas of its own size, and what was found in it on another above: drawn
// together, so that they always belong together. Decodes one picture at a time and skips to the newest. Knows no
// connection.

import { drawObjects, Trails } from "./boxes.js";
import { element } from "./elements.js";
import { fit, watchSize } from "./fit.js";
import { drawLayout } from "./zones.js";

const JPEG = { type: "image/jpeg" };
// Of a VideoFrame that lies in the browser's own memory, not on a GPU.
const PLANES = /^I4/;
const AS_RGBA = { format: "RGBA" };
const SETTLED_MS = 300;
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

/** Whether its pixels can be had for what they cost to convert: an older browser would copy it as it is. */
function isCopied(image) {
  try {
    const { width, height } = image.visibleRect;
    return PLANES.test(image.format) && image.allocationSize(AS_RGBA) === 4 * width * height;
  } catch {
    return false;
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
  // Told when it has had another size for a while.
  onSize = () => {};
  #layout = null;
  // Decoded, and not yet drawn.
  #next = null;
  // Not yet decoded.
  #waiting = null;
  #isDecoding = false;
  #isClosed = false;
  #spare = null;
  #settling = 0;
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
    this.#wait({ frame, jpeg, onShown, path: "jpeg" });
  }

  /** The same of a picture that is decoded: a VideoFrame, which is closed here. */
  show(frame, image, onShown) {
    this.#wait({ frame, image, onShown, path: "webcodecs" });
  }

  /** How many device pixels across it fills. */
  get width() {
    const ratio = window.devicePixelRatio;
    const [width, height] = [this.node.clientWidth * ratio, this.node.clientHeight * ratio];
    return Math.max(1, this.frame ? fit(this.frame.width, this.frame.height, width, height).width : Math.round(width));
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
    clearTimeout(this.#settling);
    dirty.delete(this);
    this.#waiting?.image?.close();
    this.#next?.image.close?.();
    this.#next = this.#waiting = this.#spare = null;
    // Chromium keeps the memory of a canvas until much later.
    for (const canvas of [this.pixels, this.boxes]) canvas.width = canvas.height = 0;
  }

  #wait(picture) {
    this.#waiting?.image?.close();
    this.#waiting = picture;
    if (!this.#isDecoding) this.#decode();
  }

  async #decode() {
    this.#isDecoding = true;
    while (this.#waiting) {
      const next = this.#waiting;
      this.#waiting = null;
      const image = await this.#read(next).catch(() => null);
      if (this.#isClosed) image?.close?.();
      else if (image) this.#put({ ...next, image });
      else next.onShown();
    }
    this.#isDecoding = false;
  }

  /** As pixels where they can be had: to draw a VideoFrame takes a browser without a GPU three times as long. */
  async #read({ jpeg, image }) {
    image ??= await decoded(jpeg);
    if (!isCopied(image)) return image;
    try {
      const { width, height } = image.visibleRect;
      const fits = this.#spare?.width === width && this.#spare.height === height;
      const pixels = fits ? this.#spare : new ImageData(width, height);
      this.#spare = null;
      await image.copyTo(pixels.data, AS_RGBA);
      return pixels;
    } finally {
      image.close();
    }
  }

  #put(next) {
    this.#release(this.#next);
    this.#next = next;
    this.#trails.add(next.frame);
    // At once, while the browser waits for its next paint: drawn just before, it would often miss that one.
    if (document.hidden) drawSoon(this);
    else this.draw();
  }

  #release(drawn) {
    if (drawn?.image instanceof ImageData) this.#spare = drawn.image;
    else drawn?.image.close();
  }

  #resize(width, height) {
    if (this.boxes.width !== width) this.boxes.width = width;
    if (this.boxes.height !== height) this.boxes.height = height;
    this.draw();
    this.#settle();
  }

  #settle() {
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.onSize(), SETTLED_MS);
  }

  draw() {
    const next = this.#next;
    if (next) {
      this.#next = null;
      if (this.frame?.width !== next.frame.width || this.frame.height !== next.frame.height) this.#settle();
      this.frame = next.frame;
      this.shownAt = performance.now();
      this.node.dataset.path = next.path;
      this.#drawPixels(next.image);
      this.#release(next);
    }
    if (this.frame && this.boxes.width && this.boxes.height) this.#drawFound();
    if (next) requestAnimationFrame(() => next.onShown());
  }

  #drawPixels(image) {
    const { displayWidth: width = image.width, displayHeight: height = image.height } = image;
    if (this.pixels.width !== width) this.pixels.width = width;
    if (this.pixels.height !== height) this.pixels.height = height;
    const context = this.pixels.getContext("2d", { alpha: false });
    if (image instanceof ImageData) context.putImageData(image, 0, 0);
    else context.drawImage(image, 0, 0, width, height);
  }

  #drawFound() {
    const { width, height } = this.boxes;
    const place = fit(this.frame.width, this.frame.height, width, height);
    this.#place(place);
    this.heat?.draw(this.frame, place, width, height);
    const boxes = this.boxes.getContext("2d");
    boxes.clearRect(0, 0, width, height);
    if (this.#layout && (this.#options.zones || this.isEdited))
      drawLayout(boxes, this.#layout, this.frame, place, window.devicePixelRatio);
    drawObjects(boxes, this.frame, this.#trails, place, window.devicePixelRatio, this.#options);
    this.node.dataset.seq = this.frame.seq;
  }

  /** The picture where the boxes are told that it lies. */
  #place({ left, top, width, height }) {
    const places = Object.entries({ left, top, width, height });
    for (const [side, pixels] of places) this.pixels.style[side] = `${pixels / window.devicePixelRatio}px`;
  }
}
