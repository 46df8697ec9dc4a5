// Zones and lines of one source, drawn on its large picture by mouse, finger or keys. Each change counts at once, and
// can be saved to the file that the run was started with. Knows the screen that it draws on, and no other part of the
// page.

import { Answer, SETTLE_MS } from "./controls.js";
import { button, element, setHidden, setText, svg } from "./elements.js";
import { fit, watchSize } from "./fit.js";
import { countOf } from "./zones.js";

const KINDS = {
  zones: { word: "zone", points: "polygon", least: 3, part: "corner" },
  lines: { word: "line", points: "points", least: 2, part: "end" },
};
// Placed where no mouse says where.
const USUAL = {
  zones: [
    [0.35, 0.35],
    [0.65, 0.35],
    [0.65, 0.65],
    [0.35, 0.65],
  ],
  lines: [
    [0.5, 0.65],
    [0.5, 0.35],
  ],
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.01;
const FINE_STEP = 0.001;
const KEYS_MS = 400;
const NEAR_PIXELS = 10;
const HINT =
  "Click corner after corner; a double click or Enter closes a zone, two clicks make a line. Drag corners, or move " +
  "them by the arrow keys (Shift: finely); Delete takes one away. Escape ends.";

const inside = (value) => Math.round(Math.max(0, Math.min(1, value)) * 1e4) / 1e4;

export class ZoneEditor {
  #source = null;
  // What is drawn here: {kind, name, points, rest} each; `rest` is what else the settings say of it.
  #shapes = [];
  #selected = null;
  // {kind, points} while corners are being placed.
  #drawing = null;
  #pointer = null;
  #isEditing = false;
  #sentAt = -Infinity;
  #isSending = false;
  #isDue = false;
  #timer = 0;
  #size = null;

  /** `screen` as of tile.js. */
  constructor(sourceId, screen) {
    this.sourceId = sourceId;
    this.screen = screen;
    this.answer = new Answer();
    this.layer = svg("svg", { class: "zone-layer", role: "group", "aria-label": "Zones and lines on the picture" });
    this.edit = button(null, "Edit zones", () => this.toggle(), {
      "aria-pressed": "false",
      "aria-keyshortcuts": "e",
    });
    const draw = (kind) => (event) => (event.detail ? this.#begin(kind) : this.#add(kind, USUAL[kind]));
    this.drawZone = button("add", "Draw a zone", draw("zones"));
    this.drawLine = button("add", "Draw a line", draw("lines"));
    this.save = button(null, "Save", () => this.#save(), { class: "save" });
    this.list = element("ul", { class: "zones", "aria-label": "Zones and lines" });
    this.hint = element("p", { class: "none", hidden: true }, HINT);
    this.node = element(
      "div",
      { class: "zone-editor" },
      this.list,
      element("div", { class: "buttons" }, this.edit, this.drawZone, this.drawLine, this.save),
      this.answer.node,
      this.hint,
    );
    for (const each of [this.drawZone, this.drawLine]) each.hidden = true;
    this.#listen();
  }

  #listen() {
    this.layer.addEventListener("click", (event) => this.#click(event));
    this.layer.addEventListener("pointermove", (event) => {
      this.#pointer = this.#spot(event);
      if (this.#drawing) this.#build();
    });
    this.layer.addEventListener("pointerdown", (event) => this.#grab(event));
    this.keys = (event) => this.#press(event);
    // Before the page's own keys, wherever the focus is.
    document.addEventListener("keydown", this.keys, { capture: true });
  }

  get isEditing() {
    return this.#isEditing;
  }

  toggle() {
    if (this.#isEditing) this.#end();
    else if (this.#source && this.#sides.width) this.#start();
  }

  update(source) {
    this.#source = source;
    this.edit.disabled = !this.#sides.width || source.state === "leaving";
    // What was sent holds from the source's next frame on, and is told a little later.
    const isOurs = this.#isEditing || performance.now() - this.#sentAt < SETTLE_MS;
    if (isOurs) this.screen.picture.layout = this.#layout();
    else if (this.#take(source)) this.#fill();
    this.#count();
  }

  /** Whether the source has others than were known. */
  #take(source) {
    const before = JSON.stringify(this.#layout());
    this.#shapes = Object.entries(KINDS).flatMap(([kind, { points: key }]) =>
      Object.entries(source[kind]).map(([name, { [key]: points, ...rest }]) => ({ kind, name, points, rest })),
    );
    return before !== JSON.stringify(this.#layout()) || !this.list.firstChild;
  }

  #layout() {
    const layout = { zones: {}, lines: {} };
    for (const { kind, name, points, rest } of this.#shapes)
      layout[kind][name] = { [KINDS[kind].points]: points, ...rest };
    return layout;
  }

  // -- the mode

  #start() {
    this.#isEditing = this.screen.picture.isEdited = true;
    this.#take(this.#source);
    this.screen.node.append(this.layer);
    this.#size = watchSize(this.layer, () => this.#build());
    this.#mark();
  }

  #end() {
    this.#isEditing = this.screen.picture.isEdited = false;
    this.#drawing = this.#selected = null;
    this.#size?.disconnect();
    this.layer.remove();
    this.#mark();
    this.edit.focus();
  }

  #mark() {
    this.edit.setAttribute("aria-pressed", String(this.#isEditing));
    for (const each of [this.drawZone, this.drawLine, this.hint]) setHidden(each, !this.#isEditing);
    setText(this.edit.lastChild, this.#isEditing ? "Done" : "Edit zones");
    this.screen.picture.redraw();
    this.#fill();
  }

  close() {
    clearTimeout(this.#timer);
    this.#size?.disconnect();
    document.removeEventListener("keydown", this.keys, { capture: true });
  }

  // -- drawing a new one

  #begin(kind) {
    this.#drawing = { kind, points: [] };
    this.#selected = null;
    this.#build();
  }

  #click(event) {
    if (!this.#drawing) return;
    const { kind, points } = this.#drawing;
    const spot = this.#spot(event);
    const isClosing = event.detail > 1 || (points.length && this.#isNear(spot, points[0]) && kind === "zones");
    if (!isClosing) points.push(spot);
    if (kind === "lines" ? points.length === 2 : isClosing) this.#close();
    else this.#build();
  }

  #close() {
    const { kind, points } = this.#drawing;
    if (points.length < KINDS[kind].least) return;
    this.#drawing = null;
    this.#add(kind, points);
  }

  #add(kind, points) {
    const { word } = KINDS[kind];
    const taken = new Set(this.#shapes.filter((each) => each.kind === kind).map((each) => each.name));
    let number = 1;
    while (taken.has(`${word} ${number}`)) number++;
    const shape = { kind, name: `${word} ${number}`, points: points.map((point) => [...point]), rest: {} };
    this.#shapes.push(shape);
    this.#selected = shape;
    this.#drawing = null;
    this.#fill();
    this.#changed();
    const name = this.list.lastChild.querySelector("input");
    name.focus();
    name.select();
  }

  // -- moving and removing

  #grab(event) {
    const { shape, index } = event.target;
    if (this.#drawing || !shape) return;
    this.#select(shape);
    if (index === undefined) return;
    event.preventDefault();
    const handle = this.layer.querySelectorAll(".handle")[index];
    handle.focus();
    handle.setPointerCapture(event.pointerId);
    const before = JSON.stringify(shape.points);
    const move = (moved) => this.#move(shape, index, this.#spot(moved));
    const drop = () => {
      handle.removeEventListener("pointermove", move);
      if (JSON.stringify(shape.points) !== before) this.#changed();
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", drop, { once: true });
  }

  #move(shape, index, spot) {
    shape.points[index] = spot;
    this.screen.picture.layout = this.#layout();
    this.#place();
  }

  #press(event) {
    if (!this.#isEditing || document.querySelector("dialog[open]")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { shape, index } = event.target;
    if (event.key === "Escape") {
      if (this.#drawing) this.#cancel();
      else this.#end();
    } else if (event.key === "Enter" && this.#drawing) this.#close();
    else if (index !== undefined && ARROWS[event.key]) this.#nudge(shape, index, event);
    else if (index !== undefined && event.key === "Delete") this.#takeAway(shape, index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #cancel() {
    this.#drawing = null;
    this.#build();
  }

  #nudge(shape, index, { key, shiftKey }) {
    const step = shiftKey ? FINE_STEP : STEP;
    const [x, y] = shape.points[index];
    this.#move(shape, index, [inside(x + step * ARROWS[key][0]), inside(y + step * ARROWS[key][1])]);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed(), KEYS_MS);
  }

  #takeAway(shape, index) {
    if (shape.points.length === KINDS[shape.kind].least) return;
    shape.points.splice(index, 1);
    this.#build();
    this.layer.querySelector(".handle").focus();
    this.#changed();
  }

  #select(shape) {
    if (this.#selected === shape) return;
    this.#selected = shape;
    this.#build();
  }

  #rename(shape, input) {
    const name = input.value.trim();
    const isTaken = this.#shapes.some((each) => each !== shape && each.kind === shape.kind && each.name === name);
    if (!name || isTaken) {
      input.value = shape.name;
      this.answer.tell(isTaken ? `There is a ${KINDS[shape.kind].word} ${name} already.` : "It needs a name.", true);
      return;
    }
    shape.name = name;
    this.#changed();
  }

  #remove(shape) {
    this.#shapes = this.#shapes.filter((each) => each !== shape);
    this.#selected = null;
    this.#fill();
    this.#changed();
    (this.list.querySelector("input") ?? this.drawZone).focus();
  }

  // -- what is sent

  /** At once; what changes while the run answers is sent after that. */
  async #changed() {
    this.screen.picture.layout = this.#layout();
    this.#build();
    this.#isDue = true;
    if (this.#isSending) return;
    this.#isSending = true;
    while (this.#isDue) {
      this.#isDue = false;
      this.#sentAt = performance.now();
      await this.answer.ask({ type: "tune", source_id: this.sourceId, ...this.#layout() }, []);
    }
    this.#isSending = false;
  }

  async #save() {
    await this.answer.ask({ type: "save", source_id: this.sourceId }, [this.save]);
  }

  // -- what is shown

  /** Of the picture that is shown: it may be there before the run is heard to tell of its source. */
  get #sides() {
    return this.screen.picture.frame ?? this.#source;
  }

  /** Where the picture lies in the layer, in CSS pixels. */
  #fitted() {
    const { width, height } = this.layer.getBoundingClientRect();
    return fit(this.#sides.width, this.#sides.height, width, height);
  }

  /** The place in the picture, in fractions of it. */
  #spot({ clientX, clientY }) {
    const box = this.layer.getBoundingClientRect();
    const { left, top, width, height } = this.#fitted();
    return [inside((clientX - box.left - left) / width), inside((clientY - box.top - top) / height)];
  }

  #isNear([x1, y1], [x2, y2]) {
    const { width, height } = this.#fitted();
    return Math.hypot((x1 - x2) * width, (y1 - y2) * height) < NEAR_PIXELS;
  }

  /** The layer's elements: outlines to click on, the handles of the one that is selected, what is being drawn. */
  #build() {
    if (!this.#isEditing) return;
    this.layer.classList.toggle("is-drawing", this.#drawing !== null);
    const focused = [...this.layer.querySelectorAll(".handle")].indexOf(document.activeElement);
    const parts = this.#shapes.map((shape) => Object.assign(svg("polygon", { class: "outline" }), { shape }));
    if (this.#selected) parts.push(...this.#selected.points.map((_, index) => this.#handle(this.#selected, index)));
    if (this.#drawing) parts.push(svg("polyline", { class: "drawn" }));
    this.layer.replaceChildren(...parts);
    this.#place();
    if (focused >= 0) this.layer.querySelectorAll(".handle")[focused]?.focus();
  }

  #handle(shape, index) {
    const name = `${KINDS[shape.kind].part} ${index + 1} of ${shape.name}; the arrow keys move it`;
    const handle = svg("circle", { class: "handle", r: 7, tabindex: 0, role: "button", "aria-label": name });
    return Object.assign(handle, { shape, index });
  }

  /** Where they are. */
  #place() {
    const { left, top, width, height } = this.#fitted();
    const at = ([x, y]) => [left + x * width, top + y * height];
    for (const part of this.layer.children) {
      if (part.index !== undefined) {
        const [x, y] = at(part.shape.points[part.index]);
        part.setAttribute("cx", x);
        part.setAttribute("cy", y);
      } else {
        const points = part.shape?.points ?? [...this.#drawing.points, this.#pointer].filter(Boolean);
        part.setAttribute("points", points.map((point) => at(point).join(",")).join(" "));
      }
    }
  }

  #fill() {
    const rows = this.#shapes.map((shape) => (this.#isEditing ? this.#row(shape) : this.#term(shape)));
    if (!rows.length) rows.push(element("li", { class: "none" }, "No zones and no lines"));
    this.list.replaceChildren(...rows);
    this.#count();
  }

  #term(shape) {
    const row = element("li", {}, element("b", {}, shape.name), element("span", { class: "counted" }));
    return Object.assign(row, { shape });
  }

  #row(shape) {
    const { word } = KINDS[shape.kind];
    const input = element("input", { value: shape.name, maxlength: 64, "aria-label": `Name of the ${word}` });
    const remove = button("remove", `Delete ${word} ${shape.name}`, () => this.#remove(shape), { isBare: true });
    input.addEventListener("change", () => {
      this.#rename(shape, input);
      setText(remove.lastChild, `Delete ${word} ${shape.name}`);
    });
    const row = element("li", {}, input, element("span", { class: "counted" }), remove);
    row.addEventListener("focusin", () => this.#select(shape));
    return Object.assign(row, { shape });
  }

  #count() {
    const { frame } = this.screen.picture;
    for (const row of this.list.children) {
      if (!row.shape) continue;
      const { kind, name } = row.shape;
      setText(row.querySelector(".counted"), countOf(frame, kind, name) || KINDS[kind].word);
    }
  }
}
