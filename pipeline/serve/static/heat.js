// The network's own heat map of one class, drawn half transparent between a picture and its boxes: bright is a high
// score, clear is none. Knows no source and no connection.

import { element } from "./elements.js";

// Planes come with their pictures, or a little earlier or later.
const KEPT = 8;
const OPACITY = 0.85;
// Inferno of matplotlib (public domain) in nine steps: equal steps of the value look equal.
const COLOURS = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** [red, green, blue, opacity] of each byte. */
const PALETTE = Array.from({ length: 256 }, (_, value) => {
  const place = (value / 255) * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  const mixed = COLOURS[below].map((from, i) => Math.round(from + (place - below) * (COLOURS[below + 1][i] - from)));
  return [...mixed, Math.round(255 * OPACITY * Math.sqrt(value / 255))];
});

/** `canvas` is to lie between the two of a picture. */
export class HeatLayer {
  #planes = new Map();
  #plane = document.createElement("canvas");

  constructor() {
    this.canvas = element("canvas", { class: "heat", "aria-hidden": "true", hidden: true });
  }

  /** `line` says where it lies (docs/serving.md), `bytes` are its cells. */
  take(line, bytes) {
    this.#planes.set(line.seq, { line, bytes });
    for (const seq of this.#planes.keys()) if (this.#planes.size > KEPT) this.#planes.delete(seq);
  }

  /** What is looked at is another class, or none. */
  clear() {
    this.#planes.clear();
    this.canvas.hidden = true;
  }

  /** Of the frame that is shown, or of the one that it looks as; nothing where that has none. */
  draw(frame, place, width, height) {
    const found = this.#planes.get(frame.from ?? frame.seq);
    this.canvas.hidden = !found;
    if (!found) return;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#colour(found);
    const [left, top, right, bottom] = found.line.box_xyxy;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(place.left, place.top, place.width, place.height);
    context.clip();
    context.imageSmoothingQuality = "high";
    const [x, y] = [place.x(left), place.y(top)];
    context.drawImage(this.#plane, x, y, place.x(right) - x, place.y(bottom) - y);
    context.restore();
  }

  #colour({ line: { rows, columns }, bytes }) {
    this.#plane.width = columns;
    this.#plane.height = rows;
    const image = new ImageData(columns, rows);
    for (let cell = 0; cell < bytes.length; cell++) image.data.set(PALETTE[bytes[cell]], 4 * cell);
    this.#plane.getContext("2d").putImageData(image, 0, 0);
  }
}

/** Which class is looked at: "" for none. `onChange()` when another is. */
export class HeatChoice {
  #names = null;

  constructor(onChange) {
    this.select = element("select", { name: "heat", title: "What the network sees of a class, cell by cell" });
    this.select.addEventListener("change", onChange);
    this.node = element("label", { class: "choice" }, element("span", {}, "Heat map"), this.select);
  }

  get name() {
    return this.select.value;
  }

  /** Those that are computed; from a GPU come only peaks. */
  update(model) {
    const all = model?.class_names ?? [];
    const names = model?.device !== "cpu" ? [] : model.channels.length ? model.channels.map((id) => all[id]) : all;
    if (JSON.stringify(names) === this.#names) return;
    this.#names = JSON.stringify(names);
    const chosen = this.name;
    const none = model && model.device !== "cpu" ? "stays on the GPU" : "none";
    const options = names.map((name) => element("option", { value: name, selected: name === chosen }, name));
    this.select.replaceChildren(element("option", { value: "" }, none), ...options);
    this.select.disabled = !names.length;
  }
}
