// One source, large: its picture with what was found, where its frames and their time go, and what can be changed of
// it. Knows no other source and no connection.

import { LineChart, StageTable, Timeline } from "./charts.js";
import { SourceButtons, Tuning } from "./controls.js";
import { button, element, setText } from "./elements.js";
import { Drops, Ledger, modelTerms, Outages, panel, workersOf } from "./figures.js";
import { HeatChoice, HeatLayer } from "./heat.js";
import { SECONDS } from "./history.js";
import { CHOICES, choose, options } from "./options.js";
import { Packets } from "./packets.js";
import { Badge, Screen, TIMELINE_SECONDS } from "./tile.js";
import { many, milliseconds, rate, stateOf } from "./words.js";
import { ZoneEditor } from "./zoneeditor.js";

/**
 * `go` has back(), step(by) and removed(text); look() when another picture or heat map is wanted, shown(frame) when one
 * of the camera's own is.
 */
export class SourceView {
  #drawing = { ...options, hiddenClasses: new Set() };
  #seenClasses = new Map();

  constructor(sourceId, go) {
    this.sourceId = sourceId;
    this.screen = new Screen(this.#drawing);
    this.heat = this.screen.picture.heat = new HeatLayer();
    this.heatChoice = new HeatChoice(() => {
      this.heat.clear();
      go.look();
    });
    this.packets = new Packets(
      (frame, picture) => this.screen.picture.show(frame, picture, () => go.shown(frame)),
      go.look,
    );
    this.badge = new Badge();
    this.buttons = new SourceButtons(sourceId, go.removed);
    this.tuning = new Tuning(sourceId);
    this.zones = new ZoneEditor(sourceId, this.screen);
    this.timeline = new Timeline(TIMELINE_SECONDS);
    this.objects = new LineChart("Objects in a frame, by class", SECONDS, (value) => value.toFixed(value < 10 ? 1 : 0));
    this.rates = new LineChart("Frames a second", SECONDS, (value) => value.toFixed(1));
    this.ages = new LineChart("Age at delivery", SECONDS, milliseconds);
    this.stages = new StageTable("Stages that its frames pass");
    this.ledger = new Ledger();
    this.drops = new Drops();
    this.outages = new Outages();
    this.model = element("div");
    this.#make(go);
  }

  #make(go) {
    this.title = element("h1", { tabindex: "-1" }, this.sourceId);
    this.address = element("span", { class: "address" });
    this.facts = element("p", { class: "facts" });
    const back = button("back", "All sources", go.back, { class: "back" });
    const before = button("previous", "Previous source", () => go.step(-1), { isBare: true });
    const after = button("next", "Next source", () => go.step(1), { isBare: true });
    const head = element(
      "header",
      { class: "source-head" },
      back,
      element("div", { class: "who" }, this.title, this.badge.node, this.address),
      element("div", { class: "buttons" }, before, after),
      this.buttons.node,
    );
    const fullscreen = button("fullscreen", "Full screen", () => this.fullscreen(), { isBare: true });
    this.screen.node.append(fullscreen);
    this.screen.picture.onSize = go.look;
    this.screen.picture.boxes.before(this.heat.canvas);
    fullscreen.classList.add("fullscreen");
    const axis = element(
      "div",
      { class: "axis", "aria-hidden": "true" },
      element("span", {}, "10 min ago"),
      element("span", {}, "now"),
    );
    const left = element(
      "div",
      { class: "left" },
      element("div", { class: "large" }, this.screen.node),
      this.#toolbar(),
      this.facts,
      panel("What became of its frames", this.ledger.node, this.drops.node),
      element("div", { class: "charts panel" }, this.objects.node, this.rates.node, this.ages.node),
    );
    const right = element(
      "div",
      { class: "right" },
      this.buttons.answer.node,
      panel("Signal", this.timeline.node, axis, this.outages.node),
      panel("Where the time goes", this.stages.node),
      panel("Zones and lines", this.zones.node),
      panel("Settings", this.tuning.node),
      panel("Model", this.model),
    );
    this.node = element(
      "section",
      { class: "source", "aria-label": this.sourceId },
      head,
      element("div", { class: "body" }, left, right),
    );
  }

  #toolbar() {
    this.choices = new Map(
      CHOICES.map(({ name, text, key }) => [
        name,
        toggle(text, options[name], () => this.toggle(name), { "aria-keyshortcuts": key }),
      ]),
    );
    this.classes = element("div", { class: "chips", role: "group", "aria-label": "Classes that are drawn" });
    const drawn = element(
      "div",
      { class: "chips", role: "group", "aria-label": "What is drawn" },
      ...this.choices.values(),
    );
    return element("div", { class: "toolbar" }, drawn, this.heatChoice.node, this.classes);
  }

  /** Whether a kind of drawing is on. */
  toggle(name) {
    choose(name, !options[name]);
    Object.assign(this.#drawing, options);
    setPressed(this.choices.get(name), options[name]);
    this.screen.picture.redraw();
  }

  #toggleClass(name) {
    const { hiddenClasses } = this.#drawing;
    if (!hiddenClasses.delete(name)) hiddenClasses.add(name);
    setPressed(this.#seenClasses.get(name), !hiddenClasses.has(name));
    this.screen.picture.redraw();
  }

  /** How many pixels across its picture fills. */
  get width() {
    return this.screen.picture.width;
  }

  get heatClass() {
    return this.heatChoice.name;
  }

  /** It belongs to a picture that is shown already, or is about to be. */
  hearHeat(line, bytes) {
    if (line.class !== this.heatClass) return;
    this.heat.take(line, bytes);
    if (this.screen.picture.frame?.seq === line.seq) this.screen.picture.redraw();
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.screen.node.requestFullscreen?.().catch(() => {});
  }

  update(source, view, history, nowUnix) {
    this.screen.update(source, nowUnix);
    this.badge.update(source.state);
    this.buttons.update(source);
    this.tuning.update(source, view.model);
    this.zones.update(source);
    this.heatChoice.update(view.model);
    this.timeline.update(source, nowUnix, nowUnix - view.uptime_seconds);
    this.outages.update(source, nowUnix);
    this.ledger.update(source);
    this.drops.update(source);
    this.stages.update(workersOf(view, this.sourceId));
    this.objects.update(history.objects());
    this.rates.update([["", history.rates()]]);
    this.ages.update([["", history.ages()]]);
    this.#tell(source, view);
  }

  #tell(source, view) {
    if (source.width && source.height) this.screen.node.style.setProperty("--aspect", source.width / source.height);
    setText(this.address, source.address);
    const { frame } = this.screen.picture;
    const found = this.screen.objects(source);
    for (const { class: name } of found ?? []) this.#see(name);
    for (const [name, chip] of this.#seenClasses) {
      const number = found?.filter((object) => object.class === name).length;
      setText(chip.lastChild, `${name} ${number ?? "–"}`);
    }
    const nominal = source.nominal_frames_per_second;
    const seen = view.viewers?.[view.you];
    const facts = [
      found ? many(found.length, "object") : "Objects unknown",
      source.width ? `${source.width}×${source.height}` : null,
      `${rate(source.frames_per_second)} fps${nominal ? ` of ${rate(nominal)}` : ""}`,
      frame && stateOf(source.state).isNow
        ? `this picture: ${milliseconds(frame.latency_ms)} from capture to delivery`
        : null,
      seen?.count ? `${milliseconds(seen.p50_ms)} to your screen` : null,
      frame?.predicted ? "objects predicted: nobody looked at this frame" : null,
      frame?.from != null ? `looks as frame ${frame.from}` : null,
    ];
    setText(this.facts, facts.filter(Boolean).join(" · "));
    this.#tellModel(view.model);
  }

  #see(name) {
    if (this.#seenClasses.has(name)) return;
    const chip = toggle(name, true, () => this.#toggleClass(name));
    this.#seenClasses.set(name, chip);
    this.classes.append(chip);
  }

  #tellModel(model) {
    const told = JSON.stringify(model);
    if (this.model.dataset.told === told) return;
    this.model.dataset.told = told;
    this.model.replaceChildren(model ? modelTerms(model) : element("p", {}, "The network is being loaded."));
  }

  close() {
    this.zones.close();
    this.packets.close();
    this.screen.close();
    this.node.remove();
  }
}

function toggle(text, isOn, onclick, attributes = {}) {
  const mark = element("span", { class: "tick", "aria-hidden": "true" });
  const label = element("span", {}, text);
  return element(
    "button",
    { type: "button", class: "chip", "aria-pressed": String(isOn), onclick, ...attributes },
    mark,
    label,
  );
}

function setPressed(chip, isOn) {
  chip.setAttribute("aria-pressed", String(isOn));
}
