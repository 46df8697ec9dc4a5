// Small charts: lines over the last two minutes, outages on a line of time, times of the stages. Each says in words
// what it shows. Knows nothing of the page.

import { element, setAttribute, setText, svg } from "./elements.js";
import { duration, milliseconds, rate, stateOf, timeOfDay } from "./words.js";

const LINES = 6;
const WIDTH = 600;
const HEIGHT = 100;

/** Lines over the last `seconds`; the scale goes from 0 to a round number above what is shown. */
export class LineChart {
  #seconds;
  #format;

  constructor(title, seconds, format) {
    this.#seconds = seconds;
    this.#format = format;
    this.#make(title);
  }

  #make(title) {
    this.lines = svg("g");
    const rules = [0, 0.5, 1].map((part) => svg("path", { class: "rule", d: `M0 ${part * HEIGHT}H${WIDTH}` }));
    const box = {
      viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    };
    this.drawing = svg("svg", box, ...rules, this.lines);
    this.top = element("span");
    this.middle = element("span");
    this.legend = element("ul", { class: "legend", role: "list" });
    const scale = element(
      "div",
      { class: "scale", "aria-hidden": "true" },
      this.top,
      this.middle,
      element("span", {}, "0"),
    );
    const ago = element("span", {}, `${duration(this.#seconds)} ago`);
    const axis = element("div", { class: "axis", "aria-hidden": "true" }, ago, element("span", {}, "now"));
    const plot = element("div", { class: "plot" }, scale, this.drawing, axis);
    this.title = title;
    this.value = element("span", { class: "value" });
    this.node = element("figure", { class: "chart" }, element("figcaption", {}, title, this.value), plot, this.legend);
  }

  /**
   * `series`: [[name, points]] with points of [seconds ago, value or null for a gap], from the oldest on. One alone has
   * no name.
   */
  update(series) {
    const shown = series.slice(0, LINES);
    const values = shown.flatMap(([, points]) => points.map(([, value]) => value ?? 0));
    const top = roundAbove(Math.max(0, ...values));
    setText(this.top, this.#format(top));
    setText(this.middle, this.#format(top / 2));
    this.lines.replaceChildren(
      ...shown.map(([, points], i) => svg("path", { class: `series series-${i}`, d: this.#path(points, top) })),
    );
    const now = shown.map(([name, points]) => [name, points.at(-1)?.[0] <= 3 ? points.at(-1)[1] : null]);
    this.#tell(now, series.length - shown.length);
  }

  #path(points, top) {
    let isDown = false;
    return points
      .map(([ago, value]) => {
        const command = isDown ? "L" : "M";
        isDown = value !== null;
        return isDown ? `${command}${this.#x(ago)} ${(HEIGHT * (1 - value / top)).toFixed(1)}` : "";
      })
      .join("");
  }

  #x(ago) {
    return (WIDTH * (1 - ago / this.#seconds)).toFixed(1);
  }

  #tell(now, left) {
    const text = ([name, value]) => `${name} ${value == null ? "–" : this.#format(value)}`.trim();
    setAttribute(this.drawing, "aria-label", `${this.title}; now: ${now.map(text).join(", ") || "nothing"}`);
    if (now[0]?.[0] === "") return setText(this.value, text(now[0]));
    const rows = now.map((each, i) => [i, text(each)]);
    if (left) rows.push([null, `and ${left} more`]);
    const told = rows.map(([, each]) => each).join("\n");
    if (this.legend.dataset.told === told) return;
    this.legend.dataset.told = told;
    this.legend.replaceChildren(...rows.map(([i, each]) => element("li", {}, i === null ? null : swatch(i), each)));
  }
}

function swatch(i) {
  const line = svg("path", { class: `series series-${i}`, d: "M0 5H22" });
  return svg("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" }, line);
}

/** 1, 2, 4, 10, 20, 40, …: a half of it is a round number, too. */
function roundAbove(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].map((step) => step * power).find((step) => step >= value);
}

/** When a source was not live in the last `seconds`; each state has a height of its own, for who sees no colours. */
export class Timeline {
  #seconds;

  constructor(seconds) {
    this.#seconds = seconds;
    this.node = svg("svg", { class: "timeline", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", role: "img" });
  }

  /** `startUnix`: nothing is known of what was before. */
  update(source, nowUnix, startUnix) {
    const spans = outagesOf(source).map(([state, from, to]) => [state, from, to ?? nowUnix]);
    const recent = spans.filter(([, , to]) => to > nowUnix - this.#seconds);
    const x = (unix) => Math.max(0, Math.min(WIDTH, WIDTH * (1 - (nowUnix - unix) / this.#seconds)));
    const known = svg("rect", { class: "known", x: x(startUnix), y: 0, width: WIDTH - x(startUnix), height: 10 });
    const bars = recent.map(([state, from, to]) => {
      const place = { class: "span", "data-state": state, x: x(from), width: Math.max(2, x(to) - x(from)) };
      const [y, height] = HEIGHTS[state] ?? [3, 4];
      return svg("rect", { ...place, y, height }, svg("title", {}, spanText(state, from, to)));
    });
    this.node.replaceChildren(known, ...bars);
    const told = recent.map((span) => spanText(...span)).join("; ") || "none";
    setAttribute(this.node, "aria-label", `Outages in the last ${duration(this.#seconds)}: ${told}`);
  }
}

const HEIGHTS = { lost: [0, 10], frozen: [2, 8], grey: [4, 6], paused: [7, 3], ended: [8, 2] };

/** [state, from, to], the last one with a `to` of null while it lasts. */
function outagesOf(source) {
  const over = (source.last_outages ?? []).map((outage) => [outage.state, outage.start_unix, outage.end_unix]);
  const lasts = Object.hasOwn(HEIGHTS, source.state) ? [[source.state, source.since_unix, null]] : [];
  return [...over, ...lasts];
}

function spanText(state, from, to) {
  return `${stateOf(state).label} from ${timeOfDay(from)} for ${duration(to - from)}`;
}

/** A table of workers: what waits for them, and for how long frames wait and are worked on. */
export class StageTable {
  constructor(caption) {
    const titles = ["Stage", "Queue", "Time", "Median", "p95", "fps"];
    const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
    this.rows = element("tbody");
    this.key = element(
      "p",
      { class: "key", "aria-hidden": "true" },
      element("span", { class: "dot waiting" }),
      "waiting",
      element("span", { class: "dot working" }),
      "working (medians)",
    );
    const table = element(
      "table",
      { class: "stages" },
      element("caption", { class: "hidden-text" }, caption),
      element("thead", {}, head),
      this.rows,
    );
    this.node = element(
      "div",
      { class: "scrolls", tabindex: "0", role: "region", "aria-label": caption },
      table,
      this.key,
    );
  }

  update(workers) {
    const whole = Math.max(1, ...workers.map(({ waiting, working }) => waiting.p50_ms + working.p50_ms));
    const known = new Map([...this.rows.children].map((row) => [row.dataset.id, row]));
    const rows = workers.map((worker) => {
      const row = known.get(worker.id) ?? stageRow(worker.id);
      fillStage(row, worker, whole);
      return row;
    });
    if (rows.some((row, i) => this.rows.children[i] !== row) || rows.length !== known.size)
      this.rows.replaceChildren(...rows);
  }
}

function stageRow(id) {
  const bar = element("div", { class: "bars" }, element("i", { class: "waiting" }), element("i", { class: "working" }));
  const cells = [element("td"), element("td", { class: "bar-cell" }, bar), element("td"), element("td"), element("td")];
  return element("tr", { "data-id": id }, element("th", { scope: "row" }, id), ...cells);
}

function fillStage(row, worker, whole) {
  const { waiting, working } = worker;
  const [name, queue, bar, median, late, frames] = row.children;
  const isBad = /^(lost|down)/.test(worker.status);
  const restarts = worker.restarts ? `, ${worker.restarts}× started anew` : "";
  // A decoder's is its source's.
  const shownId = worker.id.startsWith("decode:") ? "decode" : worker.id;
  setText(name, `${shownId}${isBad ? ` – ${worker.status}` : ""}${restarts}`);
  name.classList.toggle("bad", isBad);
  setText(queue, String(worker.queue_depth));
  const [wait, work] = bar.firstChild.children;
  wait.style.width = `${(100 * waiting.p50_ms) / whole}%`;
  work.style.width = `${(100 * working.p50_ms) / whole}%`;
  setAttribute(bar, "title", `waiting ${milliseconds(waiting.p50_ms)}, working ${milliseconds(working.p50_ms)}`);
  const both = (name) => (waiting.count + working.count ? milliseconds(waiting[name] + working[name]) : "–");
  setText(median, both("p50_ms"));
  setText(late, both("p95_ms"));
  setText(frames, rate(worker.frames_per_second));
}
