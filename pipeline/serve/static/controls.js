// What can be asked of the run from here: add, remove, pause, retune. Each says beside it what the run answered, as it
// is. Knows no picture.

import { say } from "./connection.js";
import { button, element, setHidden, setIcon, setText } from "./elements.js";

// What was sent is told as it then is within so long.
export const SETTLE_MS = 3_000;

/** A line beside a control: what was done, or why not. */
export class Answer {
  constructor() {
    this.node = element("p", { class: "answer", role: "status" });
  }

  /** Whether the run did it; `controls` cannot be used meanwhile. */
  async ask(word, controls) {
    for (const control of controls) control.setAttribute("aria-busy", "true");
    this.tell("", false);
    try {
      this.tell(await say(word), false);
      return true;
    } catch (error) {
      this.tell(error.message, true);
      return false;
    } finally {
      for (const control of controls) control.removeAttribute("aria-busy");
    }
  }

  clear() {
    this.tell("", false);
  }

  tell(text, isBad) {
    setText(this.node, text);
    this.node.classList.toggle("bad", isBad);
  }
}

/** Whether two lists have the same names, in whatever order. */
const isSame = (a, b) => [...a].sort().join("\n") === [...b].sort().join("\n");
const isBusy = (control) => control.getAttribute("aria-busy") === "true";

/** Opens `dialog` in front of the page; it is gone when it was closed. */
export function openDialog(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  // A click beside it closes it, as Escape does.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.showModal();
}

function field(label, input, hint) {
  const described = hint && element("small", { id: `${input.name}-hint` }, hint);
  if (described) input.setAttribute("aria-describedby", described.id);
  return element("div", { class: "field" }, element("label", {}, element("span", {}, label), input), described);
}

/** Asks for one more source; `onAdded(text)`. */
export function addSource(onAdded) {
  const address = element("input", {
    name: "uri",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "rtsp://192.0.2.7/stream1",
  });
  const name = element("input", { name: "source_id", autocomplete: "off", spellcheck: "false", maxlength: 64 });
  const rate = element("input", { name: "max_rate", type: "number", min: 0.01, step: "any", placeholder: "no limit" });
  const every = element("input", { name: "every", type: "number", min: 1, step: 1, value: 1 });
  const paced = element("input", { name: "realtime", type: "checkbox" });
  const answer = new Answer();
  const submit = element("button", { type: "submit", class: "primary" }, "Add");
  const cancel = element("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "add-title" }, "Add a source"),
    field("Address", address, "A camera (rtsp://, http://), a file, a device (/dev/video0), lavfi:testsrc2"),
    field("Name", name, "Letters, digits, spaces, - and _; without one it is called by its address"),
    element("div", { class: "row" }, field("Frames/s at most", rate), field("Look at one frame in", every)),
    element("label", { class: "check" }, paced, "Play a file at its own speed, as if it were a camera"),
    answer.node,
    element("div", { class: "actions" }, cancel, submit),
  );
  const dialog = element("dialog", { "aria-labelledby": "add-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy(submit)) return;
    const source = { uri: address.value.trim() };
    if (rate.value) source.max_rate = rate.valueAsNumber;
    if (every.value && every.valueAsNumber !== 1) source.every = every.valueAsNumber;
    if (paced.checked) source.realtime = true;
    const word = { type: "add", source, ...(name.value.trim() && { source_id: name.value.trim() }) };
    if (!(await answer.ask(word, [submit]))) return;
    const done = answer.node.textContent;
    dialog.close();
    onAdded(done);
  });
  openDialog(dialog);
}

/** Asks whether a source is to be removed; `onRemoved(text)`. */
function removeSource(sourceId, onRemoved) {
  const answer = new Answer();
  const remove = element("button", { type: "submit", class: "danger" }, "Remove");
  const cancel = element("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Keep it");
  const told = "No more of its frames are taken. Those on their way are delivered, and its own outputs are closed.";
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "remove-title" }, `Remove ${sourceId}?`),
    element("p", {}, told),
    answer.node,
    element("div", { class: "actions" }, cancel, remove),
  );
  const dialog = element("dialog", { "aria-labelledby": "remove-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy(remove) || !(await answer.ask({ type: "remove", source_id: sourceId }, [remove]))) return;
    const done = answer.node.textContent;
    dialog.close();
    onRemoved(done);
  });
  openDialog(dialog);
}

/** Pause and remove, for one source. */
export class SourceButtons {
  #source = null;

  constructor(sourceId, onRemoved) {
    this.sourceId = sourceId;
    this.answer = new Answer();
    this.pause = button("paused", "Pause", () => this.hold(), { class: "pause" });
    this.remove = button("remove", "Remove…", () => removeSource(sourceId, onRemoved), { class: "remove" });
    this.node = element("div", { class: "buttons" }, this.pause, this.remove);
  }

  update(source) {
    this.#source = source;
    const isPaused = source.state === "paused";
    setText(this.pause.lastChild, isPaused ? "Resume" : "Pause");
    setIcon(this.pause.firstChild, isPaused ? "play" : "paused");
    setHidden(this.pause, source.state === "ended" || source.state === "leaving");
    setHidden(this.remove, source.state === "leaving");
  }

  async hold() {
    if (!this.#source || this.pause.hidden || isBusy(this.pause)) return;
    const paused = this.#source.state !== "paused";
    await this.answer.ask({ type: "hold", source_id: this.sourceId, paused }, [this.pause]);
  }
}

/** Score, classes and rate of one source. What is being changed here is left alone until it was sent or put back. */
export class Tuning {
  #source = null;
  #isTouched = false;
  #sentAt = -Infinity;
  #names = [];
  // Whether these are all that the network knows: then all of them need no naming.
  #areAll = true;

  constructor(sourceId) {
    this.sourceId = sourceId;
    this.answer = new Answer();
    this.score = element("input", { type: "range", min: 0, max: 1, step: 0.01, name: "score" });
    this.scoreText = element("output");
    this.rate = element("input", { type: "number", min: 0, step: "any", name: "max_rate", placeholder: "no limit" });
    this.every = element("input", { type: "number", min: 1, step: 1, name: "every", required: true });
    this.find = element("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class" });
    this.classes = element("div", { class: "classes", role: "group", "aria-label": "Classes" });
    this.chosen = element("span", { class: "chosen" });
    this.apply = element("button", { type: "submit", class: "primary" }, "Apply");
    this.reset = element("button", { type: "button", onclick: () => this.#putBack() }, "Put back");
    this.node = this.#form();
  }

  #form() {
    const all = element("button", { type: "button", class: "small", onclick: () => this.#chooseAll(true) }, "All");
    const none = element("button", { type: "button", class: "small", onclick: () => this.#chooseAll(false) }, "None");
    const score = element("span", { class: "slider" }, this.score, this.scoreText);
    const form = element(
      "form",
      { class: "tuning" },
      field("Objects from this score on", score),
      element("div", { class: "row" }, field("Frames/s at most", this.rate), field("Look at one frame in", this.every)),
      element(
        "details",
        {},
        element("summary", {}, "Classes: ", this.chosen),
        element("div", { class: "row" }, this.find, all, none),
        this.classes,
      ),
      this.answer.node,
      element("div", { class: "actions" }, this.reset, this.apply),
    );
    form.addEventListener("input", (event) => event.target !== this.find && this.#touch());
    form.addEventListener("submit", (event) => this.#send(event));
    this.find.addEventListener("input", () => this.#search());
    this.find.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
    return form;
  }

  /** Only the classes that are computed in this run can be wanted; none while the network is being loaded. */
  update(source, model) {
    this.#source = source;
    const all = model?.class_names ?? [];
    const names = model?.channels?.length ? model.channels.map((classId) => all[classId]) : all;
    this.#areAll = names.length === all.length;
    if (!isSame(this.#names, names)) this.#list(names);
    // What was sent holds from the source's next frame on, and is told a little later.
    if (!this.#isTouched && performance.now() - this.#sentAt > SETTLE_MS) this.#fill();
    this.#tell();
  }

  #list(names) {
    this.#names = names;
    const boxes = names.map((name) => element("input", { type: "checkbox", value: name }));
    this.classes.replaceChildren(...boxes.map((box) => element("label", { class: "check" }, box, box.value)));
  }

  #boxes() {
    return [...this.classes.querySelectorAll("input")];
  }

  #fill() {
    const { score_threshold: score, max_rate: rate, every, classes } = this.#source;
    this.score.value = score;
    this.rate.value = rate ?? "";
    this.every.value = every;
    for (const box of this.#boxes()) box.checked = classes.length === 0 || classes.includes(box.value);
  }

  #touch() {
    this.#isTouched = true;
    this.#tell();
  }

  #tell() {
    const boxes = this.#boxes();
    const chosen = boxes.filter((box) => box.checked);
    const few =
      chosen
        .slice(0, 4)
        .map((box) => box.value)
        .join(", ") + (chosen.length > 4 ? ", …" : "");
    setText(this.scoreText, this.score.valueAsNumber.toFixed(2));
    setText(this.chosen, chosen.length === boxes.length ? "all" : few || "none: choose one or more");
    this.reset.disabled = !this.#isTouched;
    this.apply.disabled = !this.#isTouched || (boxes.length > 0 && !chosen.length);
  }

  #chooseAll(isChosen) {
    for (const box of this.#boxes()) if (!box.parentElement.hidden) box.checked = isChosen;
    this.#touch();
  }

  #search() {
    const wanted = this.find.value.trim().toLowerCase();
    for (const box of this.#boxes()) setHidden(box.parentElement, !box.value.toLowerCase().includes(wanted));
  }

  #putBack() {
    this.#isTouched = false;
    this.answer.clear();
    this.#fill();
    this.#tell();
  }

  /** Only what differs from what holds. */
  #changes() {
    const { score_threshold: score, max_rate: rate, every, classes } = this.#source;
    const chosen = this.#boxes()
      .filter((box) => box.checked)
      .map((box) => box.value);
    const wanted = this.#areAll && chosen.length === this.#names.length ? [] : chosen;
    const changes = {};
    if (Math.abs(this.score.valueAsNumber - score) > 0.005) changes.score = this.score.valueAsNumber;
    if ((this.rate.valueAsNumber || 0) !== (rate ?? 0)) changes.max_rate = this.rate.valueAsNumber || 0;
    if (this.every.valueAsNumber !== every) changes.every = this.every.valueAsNumber;
    if (!isSame(chosen, classes.length ? classes : this.#names)) changes.classes = wanted;
    return changes;
  }

  async #send(event) {
    event.preventDefault();
    if (!this.#isTouched || isBusy(this.apply)) return;
    const word = { type: "tune", source_id: this.sourceId, ...this.#changes() };
    if (await this.answer.ask(word, [this.apply])) {
      this.#isTouched = false;
      this.#sentAt = performance.now();
      this.#tell();
    }
  }
}
