// All sources side by side, as large as the screen lets them be. Tells which of them are on the screen. Knows no
// connection.

import { element, setHidden, setText } from "./elements.js";
import { Tile } from "./tile.js";

const GAP = 12;
const CAPTION = 68;
// The line of the run, and space around.
const BELOW = 72;
const SMALLEST = 260;
// Device pixels of a picture across: many are on their way at a time.
const WIDEST_PICTURE = 960;
const USUAL_ASPECT = 16 / 9;

/** `onVisible()` is told when others are on the screen than before, or of another size: `visible()`. */
export class Grid {
  #tiles = new Map();
  #visible = new Set();
  #options;
  #onVisible;
  #states = null;
  #aspect = USUAL_ASPECT;

  constructor(options, onVisible, onAdd) {
    this.#options = options;
    this.#onVisible = onVisible;
    this.list = element("ul", { class: "grid", role: "list", onkeydown: (event) => this.#move(event) });
    const add = element("button", { type: "button", class: "primary", onclick: onAdd }, "Add a source");
    this.empty = element("div", { class: "nothing", hidden: true }, element("p"), add);
    const title = element("h1", { class: "hidden-text" }, "Sources");
    this.node = element("section", { class: "sources" }, title, this.list, this.empty);
    this.watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          // Word of one that is gone may be on its way still.
          if (isIntersecting && this.#tiles.has(target.sourceId)) this.#visible.add(target.sourceId);
          else this.#visible.delete(target.sourceId);
        }
        onVisible();
      },
      { rootMargin: "80px" },
    );
    window.addEventListener("resize", () => this.#arrange());
  }

  /** Sources that are on the screen, each with the width its picture is wanted in: [sourceId, width]. */
  visible() {
    const width = (sourceId) => Math.min(WIDEST_PICTURE, this.#tiles.get(sourceId).screen.picture.width);
    return [...this.#visible].map((sourceId) => [sourceId, width(sourceId)]);
  }

  tile(sourceId) {
    return this.#tiles.get(sourceId);
  }

  /** Shows only sources in these states; null is all. */
  filter(states) {
    this.#states = states;
  }

  /** `ageOf(sourceId)` in ms or null. */
  update(view, nowUnix, ageOf) {
    const sources = new Map(view.sources.map((source) => [source.source_id, source]));
    for (const [sourceId, tile] of this.#tiles) if (!sources.has(sourceId)) this.#forget(sourceId, tile);
    for (const [sourceId, source] of sources) {
      if (!this.#tiles.has(sourceId)) this.#add(sourceId);
      const tile = this.#tiles.get(sourceId);
      setHidden(tile.node, Boolean(this.#states && !this.#states.has(source.state)));
      tile.update(source, ageOf(sourceId), nowUnix, nowUnix - view.uptime_seconds);
    }
    this.#order([...sources.keys()]);
    this.#aspect = commonAspect(view.sources);
    const shown = this.#shown().length;
    setHidden(this.empty, shown > 0);
    setText(this.empty.firstChild, sources.size ? "No source is in this state." : "This run has no sources yet.");
    setHidden(this.empty.lastChild, sources.size > 0);
    this.#arrange();
  }

  redraw() {
    for (const tile of this.#tiles.values()) tile.screen.picture.redraw();
  }

  #add(sourceId) {
    const tile = new Tile(sourceId, this.#options);
    tile.screen.picture.onSize = this.#onVisible;
    this.#tiles.set(sourceId, tile);
    this.list.append(tile.node);
    this.watcher.observe(tile.node);
  }

  #forget(sourceId, tile) {
    this.watcher.unobserve(tile.node);
    this.#tiles.delete(sourceId);
    this.#visible.delete(sourceId);
    tile.close();
  }

  /** As the run has them, which is not touched where it is so already: a tile in focus stays where it is. */
  #order(sourceIds) {
    sourceIds.forEach((sourceId, i) => {
      const { node } = this.#tiles.get(sourceId);
      if (this.list.children[i] !== node) this.list.insertBefore(node, this.list.children[i]);
    });
  }

  #shown() {
    return [...this.#tiles.values()].filter((tile) => !tile.node.hidden);
  }

  /** As many columns as make the tiles largest with all of them on the screen; none smaller than can be seen. */
  #arrange() {
    const number = this.#shown().length;
    const width = this.list.clientWidth;
    if (!number || !width) return;
    const height = window.innerHeight - this.list.getBoundingClientRect().top - window.scrollY - BELOW;
    let best = { columns: 1, tile: 0 };
    for (let columns = 1; columns <= number; columns++) {
      const rows = Math.ceil(number / columns);
      const widest = (width - GAP * (columns - 1)) / columns;
      const tile = Math.min(widest, ((height - GAP * (rows - 1)) / rows - CAPTION) * this.#aspect);
      if (tile > best.tile) best = { columns, tile };
    }
    if (best.tile < Math.min(SMALLEST, width)) {
      const columns = Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP)));
      best = { columns, tile: (width - GAP * (columns - 1)) / columns };
    }
    const { style } = this.list;
    style.setProperty("--columns", best.columns);
    style.setProperty("--tile", `${Math.floor(best.tile)}px`);
    style.setProperty("--aspect", this.#aspect.toFixed(4));
  }

  /** Arrow keys go to the tile beside. */
  #move(event) {
    const tiles = this.#shown();
    const at = tiles.findIndex((tile) => tile.link === document.activeElement);
    const columns = Number(this.list.style.getPropertyValue("--columns")) || 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (at < 0 || !step || event.ctrlKey || event.metaKey || event.altKey || !tiles[at + step]) return;
    event.preventDefault();
    tiles[at + step].link.focus();
  }
}

/** Width by height of most sources, so that their pictures fill their tiles. */
function commonAspect(sources) {
  const counts = new Map();
  for (const { width, height } of sources) {
    const aspect = width && height ? Math.min(2.4, Math.max(1, width / height)) : USUAL_ASPECT;
    counts.set(aspect, (counts.get(aspect) ?? 0) + 1);
  }
  return [...counts].reduce((best, each) => (each[1] > best[1] ? each : best), [USUAL_ASPECT, 0])[0];
}
