// One source in the grid: its picture, state, figures, and its outages of the last ten minutes. Knows no other tile.

import { element, icon, setAttribute, setHidden, setIcon, setText, svg } from "./elements.js";
import { Timeline } from "./charts.js";
import { Picture } from "./picture.js";
import { bannerOf, duration, many, milliseconds, rate, stateOf } from "./words.js";

export const TIMELINE_SECONDS = 600;
// Frames may be that rare; then the picture says how old it is.
const OLD_MS = 3_000;

/** A picture of a source with what must be said on it, so that it is never taken for an empty scene. */
export class Screen {
  constructor(options) {
    this.picture = new Picture(options);
    this.mark = icon("opening");
    this.headline = element("strong");
    this.cause = element("span", { class: "cause" });
    const words = element("span", {}, this.headline, this.cause);
    this.banner = element("p", { class: "banner", hidden: true }, this.mark, words);
    this.empty = element("p", { class: "empty" }, "No picture yet");
    this.note = element("p", { class: "note", hidden: true });
    this.node = element("div", { class: "screen" }, this.picture.node, this.empty, this.note, this.banner);
  }

  update(source, nowUnix) {
    const { icon: name, isNow } = stateOf(source.state);
    this.picture.layout = { zones: source.zones, lines: source.lines };
    setAttribute(this.node, "data-state", source.state);
    this.node.classList.toggle("is-past", !isNow);
    const banner = bannerOf(source, nowUnix);
    setHidden(this.banner, !banner);
    if (banner) {
      setIcon(this.mark, name);
      setText(this.headline, banner[0]);
      setText(this.cause, banner[1]);
    }
    setHidden(this.empty, this.picture.frame !== null || Boolean(banner));
    this.#annotate(isNow);
  }

  /** What holds of this picture only: that it has no result, or that it is old. */
  #annotate(isNow) {
    const { frame, shownAt } = this.picture;
    const oldMs = performance.now() - shownAt;
    const notes = [];
    if (frame && frame.status !== "ok") notes.push(`No result: ${frame.reason ?? frame.status}`);
    if (frame && isNow && oldMs > OLD_MS) notes.push(`Picture of ${duration(oldMs / 1000)} ago`);
    setHidden(this.note, notes.length === 0);
    setText(this.note, notes.join(". "));
    this.node.classList.toggle("is-failed", Boolean(frame && frame.status !== "ok"));
  }

  /** Objects in the picture that is shown; null where nobody knows of now. */
  objects(source) {
    const { frame } = this.picture;
    return frame?.status === "ok" && stateOf(source.state).isNow ? frame.objects : null;
  }

  close() {
    this.picture.close();
  }
}

/** The icon of a state with its word. */
export class Badge {
  constructor() {
    this.mark = icon("opening");
    this.text = element("span");
    this.node = element("span", { class: "badge" }, this.mark, this.text);
  }

  update(state) {
    const { icon: name, label } = stateOf(state);
    setAttribute(this.node, "data-state", state);
    setIcon(this.mark, name);
    setText(this.text, label);
  }
}

export class Tile {
  constructor(sourceId, options) {
    this.sourceId = sourceId;
    this.screen = new Screen(options);
    this.badge = new Badge();
    this.timeline = new Timeline(TIMELINE_SECONDS);
    this.link = element("a", { href: `#/${encodeURIComponent(sourceId)}`, class: "open", title: sourceId }, sourceId);
    this.figures = ["rate", "age", "objects"].map((name) => element("span", { class: `figure ${name}` }));
    this.node = element(
      "li",
      { class: "tile" },
      this.screen.node,
      element("div", { class: "caption" }, element("h2", {}, this.link), this.badge.node),
      element("p", { class: "figures" }, ...this.figures),
      this.timeline.node,
    );
    this.node.sourceId = sourceId;
  }

  /** `age` in ms of what was delivered last; null where nothing was. */
  update(source, age, nowUnix, startUnix) {
    setAttribute(this.node, "data-state", source.state);
    this.screen.update(source, nowUnix);
    this.badge.update(source.state);
    this.timeline.update(source, nowUnix, startUnix);
    const [frames, old, objects] = this.figures;
    setText(frames, `${rate(source.frames_per_second)} fps`);
    setText(old, age === null ? "" : `${milliseconds(age)} old`);
    const found = this.screen.objects(source);
    setText(objects, found ? many(found.length, "object") : "objects: –");
  }

  close() {
    this.screen.close();
    this.node.remove();
  }
}
