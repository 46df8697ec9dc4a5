// What stands above everything: the run in one line, and what must be said of it. Knows no picture.

import { button, element, icon, setAttribute, setHidden, setText } from "./elements.js";
import { write } from "./options.js";
import { duration, many, milliseconds, rate, stateOf, timeOfDay } from "./words.js";

const ORDER = ["live", "opening", "lost", "frozen", "grey", "paused", "ended", "leaving"];

/** `does` has home(), add(), help() and filter(states): a Set, or null for all. */
export class Bar {
  #chips = new Map();
  #chosen = new Set();
  #does;

  constructor(does) {
    this.#does = does;
    this.states = element("div", { class: "chips", role: "group", "aria-label": "Show only sources that are" });
    this.rate = element("span");
    this.model = element("span", { class: "more" });
    this.figures = element("p", { class: "run-figures" }, this.rate, this.model);
    const mark = element("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 });
    const home = element("a", { href: "#/", class: "home" }, mark, element("span", {}, "CenterStream"));
    const tools = [
      button("add", "Add", does.add, { class: "add", "aria-label": "Add a source" }),
      button("theme", "Dark or light", toggleTheme, { isBare: true }),
      button("help", "Help and keys", does.help, { isBare: true }),
    ];
    this.parts = [home, this.states, this.figures, element("div", { class: "buttons" }, ...tools)];
  }

  update(view) {
    const counts = new Map();
    for (const { state } of view.sources) counts.set(state, (counts.get(state) ?? 0) + 1);
    for (const state of [...ORDER, ...counts.keys()]) this.#chip(state, counts.get(state) ?? 0);
    const frames = view.sources.reduce((sum, source) => sum + source.frames_per_second, 0);
    const { latency, model } = view;
    const age = latency.count ? ` · ${milliseconds(latency.p50_ms)} old, p95 ${milliseconds(latency.p95_ms)}` : "";
    setText(this.rate, `${rate(frames)} fps${age}`);
    setText(this.model, ` · ${model ? [model.name, model.engine, model.precision].join(" ") : "loading the network"}`);
  }

  #chip(state, number) {
    let chip = this.#chips.get(state);
    if (!chip) {
      if (!number) return;
      chip = element("button", {
        type: "button",
        class: "chip state",
        "data-state": state,
        onclick: () => this.#choose(state),
      });
      chip.append(icon(stateOf(state).icon), element("span"));
      this.#chips.set(state, chip);
      this.states.append(...ORDER.map((each) => this.#chips.get(each)).filter(Boolean));
    }
    setHidden(chip, number === 0 && !this.#chosen.has(state));
    setText(chip.lastChild, `${number} ${stateOf(state).label}`);
    setAttribute(chip, "aria-pressed", this.#chosen.has(state));
  }

  #choose(state) {
    if (!this.#chosen.delete(state)) this.#chosen.add(state);
    this.#does.filter(this.#chosen.size ? this.#chosen : null);
  }
}

function toggleTheme() {
  const { dataset } = document.documentElement;
  const isDark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  dataset.theme = isDark ? "light" : "dark";
  write("theme", dataset.theme);
}

/** Lines above the pictures: no connection, the run ends, warnings and problems. */
export class Notices {
  #retry;
  #version = null;

  constructor(retry) {
    this.#retry = retry;
    this.away = element(
      "p",
      { class: "notice bad", hidden: true },
      icon("away"),
      element("span"),
      button(null, "Try now", retry),
    );
    this.stopping = element(
      "p",
      { class: "notice", hidden: true },
      icon("ended"),
      "The run is about to end: it takes no more frames.",
    );
    const reload = button(null, "Reload", () => location.reload());
    this.changed = element("p", { class: "notice", hidden: true }, icon("warning"), element("span"), reload);
    this.list = element("ul");
    this.summary = element("summary");
    this.warnings = element("details", { class: "notice", hidden: true }, this.summary, this.list);
    this.nodes = [this.away, this.stopping, this.changed, this.warnings];
  }

  /** As of connection.js: null while connected. */
  showAway(away) {
    setHidden(this.away, !away);
    if (!away) return;
    const seconds = Math.max(0, Math.ceil((away.retryAt - performance.now()) / 1000));
    const wait = seconds ? `trying again in ${seconds} s` : "trying now";
    const since = `${timeOfDay(away.sinceUnix)} (${duration(Date.now() / 1000 - away.sinceUnix)})`;
    const why = away.problem || "What is shown is old.";
    setText(this.away.children[1], `No connection to the run since ${since}, ${wait}. ${why}`);
  }

  update(view) {
    setHidden(this.stopping, !view.is_stopping);
    this.#version ??= view.version;
    setHidden(this.changed, view.version === this.#version);
    setText(this.changed.children[1], `The run is CenterStream ${view.version} now, this page ${this.#version}.`);
    const lines = [
      ...view.problems.map((text) => ["Problem", text]),
      ...view.warnings.map((text) => ["Warning", text]),
    ];
    setHidden(this.warnings, lines.length === 0);
    this.warnings.classList.toggle("bad", view.problems.length > 0);
    const counts = [
      [view.problems.length, "problem"],
      [view.warnings.length, "warning"],
    ];
    setText(
      this.summary,
      counts
        .filter(([number]) => number)
        .map(([number, word]) => many(number, word))
        .join(", "),
    );
    const told = lines.map(([kind, text]) => `${kind}: ${text}`);
    if (this.list.dataset.told === told.join("\n")) return;
    this.list.dataset.told = told.join("\n");
    this.list.replaceChildren(...told.map((text) => element("li", {}, text)));
  }
}
