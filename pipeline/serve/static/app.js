// The page: what is known of the run, which of its two sides is shown (`#/` all sources, `#/gate` one), and who is told
// of what comes. Knows everything else here; nothing else knows it.

import { Bar, Notices } from "./bar.js";
import { Connection } from "./connection.js";
import { addSource } from "./controls.js";
import { element, setText } from "./elements.js";
import { RunDetails } from "./figures.js";
import { Grid } from "./grid.js";
import { History } from "./history.js";
import { Keys } from "./keys.js";
import { CHOICES, choose, options } from "./options.js";
import { SourceView } from "./source.js";
import { stateOf } from "./words.js";

const ANNOUNCE_MS = 1_000;
// A view that was asked for before a signal changed may come so much later than the word of it.
const STALE_MS = 3_000;

class Page {
  #view = null;
  #aheadSeconds = 0;
  #away = null;
  #histories = new Map();
  // The newest picture of each source that was seen here: for the large view until its own comes, and of what is lost.
  #newest = new Map();
  #states = new Map();
  #signals = new Map();
  #large = null;
  #looked = "";
  #unsaid = [];

  constructor() {
    this.main = document.getElementById("main");
    this.announcements = document.getElementById("announcements");
    this.grid = new Grid(
      options,
      () => this.#look(),
      () => this.#add(),
    );
    this.details = new RunDetails();
    this.overview = element("div", { class: "overview" }, this.grid.node, this.details.node);
    this.waiting = element("p", { class: "nothing" }, "Waiting for the run…");
    this.bar = new Bar({
      add: () => this.#add(),
      help: () => this.keys.help(),
      filter: (states) => this.#filter(states),
    });
    document.getElementById("bar").append(...this.bar.parts);
    this.main.append(this.waiting);
    this.keys = new Keys(this.#keys());
    this.connection = new Connection({
      view: (view) => this.#hearView(view),
      signal: (signal) => this.#hearSignal(signal),
      picture: (frame, jpeg) => this.#hearPicture(frame, jpeg),
      heat: (line, bytes) => this.#large?.sourceId === line.source && this.#large.hearHeat(line, bytes),
      result: (frame, captured) => this.#largeOf(frame.source)?.packets.hear(frame, captured),
      packet: (sourceId, packet, data) => this.#largeOf(sourceId)?.packets.take(packet, data),
      away: (away) => this.#hearAway(away),
    });
    this.notices = new Notices(() => this.connection.retry());
    document.getElementById("notices").append(...this.notices.nodes);
    this.#listen();
  }

  #listen() {
    window.addEventListener("hashchange", () => this.#route());
    document.addEventListener("visibilitychange", () => this.#look());
    setInterval(() => this.#tick(), 1000);
    this.details.node.addEventListener("toggle", () => this.#view && this.details.update(this.#view));
    document.getElementById("skip").addEventListener("click", (event) => {
      event.preventDefault();
      this.main.focus();
    });
  }

  #keys() {
    const large = (does) => () => (this.#large ? does(this.#large) : false);
    return [
      { key: "Enter", text: "On a source: its large view", does: () => false },
      { key: "Escape", text: "Back to all sources", does: large(() => this.#goTo(null)) },
      { key: "ArrowLeft", name: "←", text: "Previous source", does: large(() => this.#step(-1)) },
      {
        key: "ArrowRight",
        name: "→",
        text: "Next source; among all sources: to the tile beside, as ↑ and ↓",
        does: large(() => this.#step(1)),
      },
      ...CHOICES.map(({ key, name, text }) => ({
        key,
        text: `${text}: draw them or not`,
        does: () => this.#toggle(name),
      })),
      { key: "p", text: "Pause or resume", does: large((view) => view.buttons.hold()) },
      { key: "e", text: "Edit zones and lines", does: large((view) => view.zones.toggle()) },
      { key: "f", text: "Picture in full screen", does: large((view) => view.fullscreen()) },
      { key: "a", text: "Add a source", does: () => this.#add() },
      { key: "?", text: "This help", does: () => this.keys.help() },
    ];
  }

  // -- what comes

  #hearView(view) {
    const isFirst = !this.#view;
    this.#view = view;
    this.#aheadSeconds = view.at_unix - Date.now() / 1000;
    const now = new Set(view.sources.map((source) => source.source_id));
    for (const known of [this.#histories, this.#newest, this.#states, this.#signals])
      for (const sourceId of known.keys()) if (!now.has(sourceId)) known.delete(sourceId);
    for (const source of view.sources) {
      this.#foretell(source);
      this.#history(source.source_id).addView(source);
      this.#announceState(source);
    }
    if (isFirst) this.#route();
    this.#show();
  }

  /** It comes before a view tells of it. */
  #hearSignal(signal) {
    this.#signals.set(signal.source, { signal, cameAt: performance.now() });
    const source = this.#view?.sources.find((each) => each.source_id === signal.source);
    if (!source) return;
    this.#foretell(source);
    this.#announceState(source);
    this.#show();
  }

  /** As the last word of its signal has it, also in a view from before: what is lost does not look live again. */
  #foretell(source) {
    const { signal, cameAt } = this.#signals.get(source.source_id) ?? {};
    if (!signal || performance.now() - cameAt > STALE_MS || ["leaving", "ended"].includes(source.state)) return;
    const { state, cause, at_unix: since_unix, outage } = signal;
    Object.assign(source, { state, cause, since_unix });
    const isOver = outage && !source.last_outages.some(({ start_unix }) => start_unix === outage.start_unix);
    if (isOver) source.last_outages = [...source.last_outages, outage];
  }

  #hearPicture(frame, jpeg) {
    this.#newest.set(frame.source, { frame, jpeg });
    this.#history(frame.source).addFrame(frame);
    const large = this.#largeOf(frame.source);
    if (large?.packets.flows) return; // it was on its way when they began
    const picture = this.#large ? large?.screen.picture : this.grid.tile(frame.source)?.screen.picture;
    picture?.take(frame, jpeg, () => this.connection.shown(frame.source, frame.seq));
  }

  #largeOf(sourceId) {
    return this.#large?.sourceId === sourceId ? this.#large : null;
  }

  /** A picture of a camera's own packets is on the screen. */
  #hearShown(frame) {
    this.#history(frame.source).addFrame(frame);
    this.connection.shown(frame.source, frame.seq, "packets");
  }

  #hearAway(away) {
    if (Boolean(away) !== Boolean(this.#away))
      this.#announce(away ? "No connection to the run" : "Connected to the run");
    this.#away = away;
    document.body.classList.toggle("is-away", Boolean(away));
    this.notices.showAway(away);
    this.#title();
  }

  #history(sourceId) {
    if (!this.#histories.has(sourceId)) this.#histories.set(sourceId, new History());
    return this.#histories.get(sourceId);
  }

  // -- what is shown

  /** Times go on also while nothing comes. */
  #tick() {
    this.notices.showAway(this.#away);
    if (this.#away && this.#view) this.#show();
  }

  /** By the run's clock, which need not be this machine's. */
  #nowUnix() {
    return Date.now() / 1000 + this.#aheadSeconds;
  }

  #show() {
    const view = this.#view;
    this.bar.update(view);
    this.notices.update(view);
    this.#title();
    if (!this.#large) {
      this.grid.update(view, this.#nowUnix(), (sourceId) => this.#history(sourceId).age);
      this.details.update(view);
      return;
    }
    const source = view.sources.find((each) => each.source_id === this.#large.sourceId);
    if (source) this.#large.update(source, view, this.#history(source.source_id), this.#nowUnix());
    else this.#goTo(null);
  }

  #title() {
    const troubled = this.#view?.sources.filter(({ state }) => ["lost", "frozen", "grey"].includes(state)).length ?? 0;
    const what = this.#away ? "No connection" : troubled ? `${troubled} in trouble` : null;
    const title = [what, this.#large?.sourceId, "CenterStream"].filter(Boolean).join(" – ");
    if (document.title !== title) document.title = title;
  }

  /** Which side is shown is in the address: it can be kept, sent, and gone back from. */
  #route() {
    if (!this.#view) return;
    const sourceId = wantedSource();
    const before = this.#large?.sourceId ?? null;
    const isKnown = this.#view.sources.some((source) => source.source_id === sourceId);
    if (sourceId && !isKnown) return this.#goTo(null);
    if (sourceId === before && this.main.firstChild !== this.waiting) return;
    this.#large?.close();
    this.#large = sourceId ? this.#enlarge(sourceId) : null;
    this.main.replaceChildren(this.#large ? this.#large.node : this.overview);
    this.#show();
    if (sourceId) this.#large.title.focus({ preventScroll: true });
    else if (before) this.grid.tile(before)?.link.focus();
    if (sourceId) window.scrollTo(0, 0);
    this.#look();
  }

  #enlarge(sourceId) {
    const go = {
      back: () => this.#goTo(null),
      step: (by) => this.#step(by),
      removed: (text) => this.#removed(text),
      look: () => this.#look(),
      shown: (frame) => this.#hearShown(frame),
    };
    const large = new SourceView(sourceId, go);
    const newest = this.#newest.get(sourceId);
    if (newest) large.screen.picture.take(newest.frame, newest.jpeg);
    return large;
  }

  #goTo(sourceId) {
    location.hash = sourceId ? `#/${encodeURIComponent(sourceId)}` : "#/";
  }

  #step(by) {
    const { sources } = this.#view;
    const at = sources.findIndex((source) => source.source_id === this.#large.sourceId);
    this.#goTo(sources[(at + by + sources.length) % sources.length].source_id);
  }

  /** Nothing while nobody can see it; else what is on the screen. */
  #look() {
    const large = () => (this.#large.packets.flows ? [] : [[this.#large.sourceId, this.#large.width]]);
    const pictures = document.hidden ? [] : this.#large ? large() : this.grid.visible();
    const heatClass = document.hidden ? "" : this.#large?.heatClass;
    const heat = heatClass ? [[this.#large.sourceId, heatClass]] : [];
    const packets = !document.hidden && this.#large?.packets.isWanted ? [this.#large.sourceId] : [];
    const looked = JSON.stringify([pictures.sort(), heat, packets]);
    if (looked === this.#looked) return;
    this.#looked = looked;
    this.connection.look(new Map(pictures), new Map(heat), packets);
  }

  // -- what is asked for

  #add() {
    addSource((text) => this.#announce(text));
  }

  #removed(text) {
    this.#announce(text);
    this.#goTo(null);
  }

  #filter(states) {
    this.grid.filter(states);
    this.#goTo(null);
    if (this.#view) this.#show();
  }

  #toggle(name) {
    if (this.#large) return this.#large.toggle(name);
    choose(name, !options[name]);
    this.grid.redraw();
  }

  // -- what is said to who does not see it

  #announceState(source) {
    const before = this.#states.get(source.source_id);
    this.#states.set(source.source_id, source.state);
    if (before && before !== source.state) {
      const why = source.cause ? `: ${source.cause}` : "";
      this.#announce(`${source.source_id} is ${stateOf(source.state).label}${why}`);
    }
  }

  /** What comes at the same time is said together, and of much only how much. */
  #announce(text) {
    this.#unsaid.push(text);
    if (this.#unsaid.length > 1) return;
    setTimeout(() => {
      const number = this.#unsaid.length;
      const all = this.#unsaid.join(". ");
      setText(this.announcements, number > 3 ? `${number} changes; the last: ${this.#unsaid.at(-1)}` : all);
      this.#unsaid = [];
    }, ANNOUNCE_MS);
  }
}

function wantedSource() {
  try {
    return decodeURIComponent(location.hash.replace(/^#\/?/, "")) || null;
  } catch {
    return null;
  }
}

new Page();
