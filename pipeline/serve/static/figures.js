// Figures as text and tables: the fate of frames, outages, workers, outputs, the model. Knows no picture.

import { StageTable } from "./charts.js";
import { element, setHidden, setText, terms } from "./elements.js";
import { bytes, count, duration, many, milliseconds, stateOf, timeOfDay } from "./words.js";

const CHAIN = ["decode", "gather", "infer", "postprocess", "track", "deliver"];

/** The workers that a source's frames pass, in their order. */
export function workersOf(view, sourceId) {
  const stage = ({ id }) => id.split(":", 1)[0];
  const passed = view.workers.filter(
    (each) => CHAIN.includes(stage(each)) && (stage(each) !== "decode" || each.id === `decode:${sourceId}`),
  );
  return passed.sort((a, b) => CHAIN.indexOf(stage(a)) - CHAIN.indexOf(stage(b)));
}

/** A part of the page with a heading. */
export function panel(title, ...children) {
  return element("section", { class: "panel" }, element("h2", {}, title), ...children);
}

/** A table of what the network is. */
export function modelTerms(model) {
  const speeds = Object.entries(model.engine_speeds ?? {}).sort(([, a], [, b]) => b - a);
  const pairs = [
    ["Network", model.name],
    ["Weights", model.weights],
    ["Input", `${model.input_width}×${model.input_height}`],
    ["Engine", model.engine],
    ["Precision", model.precision],
    ["Device", model.device],
    ["Side by side", `${many(model.workers, "frame")} on ${many(model.threads, "thread")} each`],
    ["Classes", count(model.channels?.length || model.class_names.length)],
    ["Chosen among", speeds.map(([name, speed]) => `${name} ${speed.toFixed(1)}/s`).join(", ")],
    ["On precision", model.on_precision],
  ];
  return terms(
    pairs.filter(([, value]) => value),
    { class: "terms" },
  );
}

/** captured = delivered + without result + dropped + in flight */
export class Ledger {
  constructor() {
    this.node = element("p", { class: "ledger" });
    this.numbers = new Map();
    const names = ["captured", "delivered", "without result", "dropped", "in flight"];
    names.forEach((name, i) => {
      const number = element("b");
      this.numbers.set(name, number);
      if (i) this.node.append(element("span", { class: "sign" }, i === 1 ? "=" : "+"));
      this.node.append(element("span", { class: "term", "data-term": name }, number, ` ${name}`));
    });
  }

  update({ captured, delivered, without_result: without, dropped, in_flight: inFlight }) {
    const numbers = { captured, delivered, "without result": without, dropped, "in flight": inFlight };
    for (const [name, number] of Object.entries(numbers)) {
      setText(this.numbers.get(name), count(number));
      this.numbers.get(name).parentElement.classList.toggle("none", number === 0);
    }
  }
}

/** Rows that are made anew only when they say something else. */
function fillRows(body, rows) {
  const told = JSON.stringify(rows);
  if (body.dataset.told === told) return;
  body.dataset.told = told;
  const cells = (row) => row.map((cell, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
  body.replaceChildren(...rows.map((row) => element("tr", {}, ...cells(row))));
}

function table(caption, titles, body) {
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  const made = element(
    "table",
    {},
    element("caption", { class: "hidden-text" }, caption),
    element("thead", {}, head),
    body,
  );
  return element("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": caption }, made);
}

export class Drops {
  constructor() {
    this.body = element("tbody");
    this.none = element("p", { class: "none" }, "No frame was dropped.");
    this.table = table("Dropped frames by reason", ["Dropped because", "At", "Frames", "Share"], this.body);
    this.node = element("div", {}, this.none, this.table);
  }

  update({ drops, captured }) {
    const sorted = [...drops].sort((a, b) => b.frames - a.frames);
    setHidden(this.none, drops.length > 0);
    setHidden(this.table, drops.length === 0);
    const share = (frames) => `${((100 * frames) / Math.max(1, captured)).toFixed(1)} %`;
    fillRows(
      this.body,
      sorted.map(({ stage, reason, frames }) => [reason, stage, count(frames), share(frames)]),
    );
  }
}

export class Outages {
  constructor() {
    this.body = element("tbody");
    this.none = element("p", { class: "none" }, "No outage so far.");
    this.table = table("Outages", ["Was", "Because", "From", "Lasted", "Attempts"], this.body);
    this.node = element("div", {}, this.none, this.table);
  }

  update(source, nowUnix) {
    const over = [...source.last_outages].reverse();
    const rows = over.map(({ state, cause, start_unix: start, end_unix: end, attempts }) => [
      stateOf(state).label,
      cause,
      timeOfDay(start),
      duration(end - start),
      attempts ? count(attempts) : "–",
    ]);
    if (["lost", "frozen", "grey"].includes(source.state)) {
      const { since_unix: since, state, cause } = source;
      rows.unshift([stateOf(state).label, cause, timeOfDay(since), `${duration(nowUnix - since)}, goes on`, "–"]);
    }
    setHidden(this.none, rows.length > 0);
    setHidden(this.table, rows.length === 0);
    fillRows(this.body, rows);
  }
}

/** The run's outputs and the memory of its workers, for the overview. */
export class RunDetails {
  constructor() {
    this.stages = new StageTable("Stages, for all sources");
    this.outputs = element("tbody");
    this.workers = element("tbody");
    this.model = element("div");
    this.facts = element("p", { class: "facts" });
    this.node = element(
      "details",
      { class: "run" },
      element("summary", {}, element("h2", {}, "The run")),
      this.facts,
      element(
        "div",
        { class: "run-panels" },
        panel("Where the time goes", this.stages.node),
        panel("Outputs", table("Outputs", ["Output", "Path", "Frames", "Missed", "Problem"], this.outputs)),
        panel("Processes", table("Processes", ["Worker", "State", "Started anew", "CPU", "Memory"], this.workers)),
        panel("Model", this.model),
      ),
    );
  }

  update(view) {
    if (!this.node.open) return;
    const { latency } = view;
    const ages = ["p50", "p95", "p99"].map((name) => `${name} ${milliseconds(latency[`${name}_ms`])}`).join(", ");
    const age = latency.count ? `; age at delivery: ${ages}` : "";
    setText(this.facts, `CenterStream ${view.version}, up for ${duration(view.uptime_seconds)}${age}`);
    this.stages.update(workersOf(view, null));
    fillRows(
      this.outputs,
      view.outputs.map(({ name, path, frames, missed, problem }) => [
        name,
        path,
        count(frames),
        count(missed),
        problem ?? "–",
      ]),
    );
    fillRows(this.workers, view.workers.map(workerRow));
    this.model.replaceChildren(view.model ? modelTerms(view.model) : "The network is being loaded.");
  }
}

function workerRow({ id, status, restarts, cpu_seconds: cpu, memory_bytes: memory }) {
  return [id, status, count(restarts), cpu == null ? "–" : duration(cpu), bytes(memory)];
}
