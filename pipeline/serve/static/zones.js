// Draws the zones and lines of a source onto a canvas above its picture, with their counts, and says those in words.
// As in the overlay videos: white with a dark edge, an arrow to where forward is. Knows no source and no picture.

const LIGHT = "#fff";
const DARK = "rgb(24 24 24 / 0.85)";
// In CSS pixels: how far an arrow reaches from its line.
const REACH = 22;

const sum = (byClass) => Object.values(byClass).reduce((all, count) => all + count, 0);
const listed = (byClass) =>
  Object.entries(byClass)
    .map(([name, count]) => `${count} ${name}`)
    .join(", ");

/** "2 person, 1 car" of a zone and "3 forward, 1 backward" of a line, as frames tell them; "" where one does not. */
export function countOf(frame, kind, name) {
  const found = frame?.[kind]?.[name];
  if (!found) return "";
  if (kind === "zones") return listed(found.inside) || "0";
  return `${sum(found.forward)} forward, ${sum(found.backward)} backward`;
}

/** `layout` has zones and lines by name, as of a source; `place` as of `fit`; `ratio` is device pixels a CSS pixel. */
export function drawLayout(context, layout, frame, place, ratio) {
  const at = ([x, y]) => [place.left + x * place.width, place.top + y * place.height];
  const isSmall = place.width / ratio < 500;
  const labels = [];
  context.save();
  context.beginPath();
  context.rect(place.left, place.top, place.width, place.height);
  context.clip();
  for (const [name, { polygon }] of Object.entries(layout.zones)) {
    const corners = polygon.map(at);
    stroke(context, [corners], true, ratio);
    labels.push([isSmall ? shortOf(frame, "zones", name) : `${name}  ${countOf(frame, "zones", name)}`, corners]);
  }
  for (const [name, { points }] of Object.entries(layout.lines)) {
    const ends = points.map(at);
    stroke(context, [ends, ...arrow(ends, REACH * ratio * (isSmall ? 0.6 : 1))], false, ratio);
    labels.push([isSmall ? shortOf(frame, "lines", name) : `${name}  ${countOf(frame, "lines", name)}`, ends]);
  }
  for (const [text, points] of labels) label(context, text.trim(), points, place, ratio, isSmall);
  context.restore();
}

function shortOf(frame, kind, name) {
  const found = frame?.[kind]?.[name];
  if (!found) return "";
  return kind === "zones" ? String(sum(found.inside)) : `${sum(found.forward)} / ${sum(found.backward)}`;
}

/** From the middle of a line to its right hand, as seen from the first point to the second: that is forward. */
function arrow([[x1, y1], [x2, y2]], reach) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [ahead, aside] = [
    [(y1 - y2) / length, (x2 - x1) / length],
    [(x2 - x1) / length, (y2 - y1) / length],
  ];
  const middle = [(x1 + x2) / 2, (y1 + y2) / 2];
  const from = (forward, sideways) => [0, 1].map((i) => middle[i] + reach * (forward * ahead[i] + sideways * aside[i]));
  return [
    [middle, from(1, 0)],
    [from(0.66, 0.33), from(1, 0), from(0.66, -0.33)],
  ];
}

function stroke(context, paths, isClosed, ratio) {
  context.beginPath();
  for (const [first, ...others] of paths) {
    context.moveTo(...first);
    for (const point of others) context.lineTo(...point);
    if (isClosed) context.closePath();
  }
  context.lineJoin = "round";
  for (const [colour, width] of [
    [DARK, 3.5 * ratio],
    [LIGHT, 1.5 * ratio],
  ]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

/** At the uppermost point, inside of the picture. */
function label(context, text, points, place, ratio, isSmall) {
  if (!text) return;
  const size = Math.round((isSmall ? 10 : 12) * ratio);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const [width, height] = [Math.ceil(context.measureText(text).width + size * 0.8), Math.round(size * 1.5)];
  const [left, top] = points.reduce((best, point) => (point[1] < best[1] ? point : best));
  const x = Math.max(place.left, Math.min(left, place.left + place.width - width));
  const y = Math.max(place.top, Math.min(top - height - 3 * ratio, place.top + place.height - height));
  context.fillStyle = DARK;
  context.fillRect(x, y, width, height);
  context.fillStyle = LIGHT;
  context.fillText(text, x + size * 0.4, y + height / 2 + size * 0.06);
}
