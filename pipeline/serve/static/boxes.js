// Draws what was found in a picture onto a canvas above it: boxes, labels, trails. The colours are those of the overlay
// videos. Knows no source and no picture.

const TRAIL_SECONDS = 2;
const TRAIL_STEP_SECONDS = 0.2;

// Bright enough for black text, neighbours far apart in hue: as in pipeline/overlay.py.
const PALETTE = [
  [60, 150, 255],
  [255, 160, 40],
  [230, 110, 255],
  [185, 235, 40],
  [255, 80, 80],
  [30, 215, 255],
  [255, 225, 40],
  [155, 125, 255],
  [60, 205, 95],
  [255, 110, 175],
  [60, 235, 195],
  [255, 195, 170],
];
// In a small picture a label that is so many times as wide as its box would hide more than it says.
const WIDEST = 3;
const NEUTRAL = [205, 205, 205];
const DARK = "rgb(0 0 0 / 0.55)";

/** [red, green, blue] of a track, the same for ever; without one, neutral. */
export function colourOf(trackId) {
  return trackId == null ? NEUTRAL : PALETTE[trackId % PALETTE.length];
}

const css = ([red, green, blue], opacity = 1) => `rgb(${red} ${green} ${blue} / ${opacity})`;

/** Where the tracks of one source were in the last two seconds of its own time. */
export class Trails {
  #points = new Map();
  #now = -Infinity;

  add(frame) {
    if (frame.pts_seconds <= this.#now) this.#points.clear();
    this.#now = frame.pts_seconds;
    for (const {
      track_id: id,
      box_xyxy: [left, , right, bottom],
    } of frame.objects) {
      if (id == null) continue;
      if (!this.#points.has(id)) this.#points.set(id, []);
      extend(this.#points.get(id), [this.#now, (left + right) / 2, bottom]);
    }
    for (const [id, points] of this.#points) {
      while (points.length && points[0][0] < this.#now - TRAIL_SECONDS) points.shift();
      if (!points.length) this.#points.delete(id);
    }
  }

  draw(context, place, width, isHidden) {
    context.lineCap = "round";
    for (const [id, points] of this.#points) {
      if (isHidden(id)) continue;
      for (let i = 1; i < points.length; i++) {
        const strength = 1 - (this.#now - points[i][0]) / TRAIL_SECONDS;
        context.strokeStyle = css(colourOf(id), Math.max(0.05, strength));
        context.lineWidth = Math.max(1, width * strength);
        context.beginPath();
        context.moveTo(place.x(points[i - 1][1]), place.y(points[i - 1][2]));
        context.lineTo(place.x(points[i][1]), place.y(points[i][2]));
        context.stroke();
      }
    }
  }
}

/** The last point, too young to be kept for itself, gives way to the next. */
function extend(points, point) {
  const young = points.length >= 2 && points.at(-1)[0] - points.at(-2)[0] < TRAIL_STEP_SECONDS;
  if (young) points.pop();
  points.push(point);
}

/**
 * All of one frame. `place` as of `fit`; `ratio` is device pixels a CSS pixel; `options` as of options.js, with
 * `hiddenClasses`. Lines lie on whole device pixels, inside of the box.
 */
export function drawObjects(context, frame, trails, place, ratio, options) {
  const objects = frame.objects.filter((object) => !options.hiddenClasses?.has(object.class));
  const line = Math.max(1, Math.round((place.width / ratio > 500 ? 2 : 1.5) * ratio));
  context.save();
  context.beginPath();
  context.rect(place.left, place.top, place.width, place.height);
  context.clip();
  if (options.trails) {
    const seen = new Set(objects.map((object) => object.track_id));
    trails.draw(context, place, 1.5 * line, (id) => options.hiddenClasses?.size > 0 && !seen.has(id));
  }
  const placed = objects.map((object) => [object, corners(object.box_xyxy, place)]);
  if (options.boxes)
    for (const [object, box] of placed.toReversed()) outline(context, object, box, line);
  if (options.labels || options.scores || options.ids) drawLabels(context, placed, place, ratio, options);
  context.restore();
}

/** The box in whole device pixels, at least one of them large. */
function corners([left, top, right, bottom], place) {
  const [x0, y0, x1, y1] = [place.x(left), place.y(top), place.x(right), place.y(bottom)].map(Math.round);
  return [x0, y0, Math.max(x1, x0 + 1), Math.max(y1, y0 + 1)];
}

/** A tracked object's in its colour; one without a track thin and grey; dashed where it was not found. */
function outline(context, object, [left, top, right, bottom], line) {
  const width = object.track_id == null ? Math.max(1, line >> 1) : line;
  context.lineWidth = 1;
  context.setLineDash([]);
  context.strokeStyle = DARK;
  context.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
  context.strokeStyle = css(colourOf(object.track_id));
  context.lineWidth = width;
  context.setLineDash(object.predicted ? [4 * line, 3 * line] : []);
  context.strokeRect(left + width / 2, top + width / 2, right - left - width, bottom - top - width);
  context.setLineDash([]);
}

/** Beside their boxes, best score first; what would cover another is shortened, then left out. */
function drawLabels(context, placed, place, ratio, options) {
  const isSmall = place.width / ratio < 500;
  const size = Math.round((isSmall ? 10 : 12) * ratio);
  const height = Math.round(size * 1.45);
  const taken = [];
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const [object, box] of placed) {
    for (const text of texts(object, options, isSmall)) {
      const width = Math.ceil(context.measureText(text).width + size * 0.7);
      if (isSmall && width > WIDEST * (box[2] - box[0])) continue;
      const spot = spots(box, width, height, place).find((each) => !taken.some((other) => overlap(each, other)));
      if (!spot) continue;
      taken.push(spot);
      context.fillStyle = css(colourOf(object.track_id), 0.88);
      context.fillRect(spot[0], spot[1], width, height);
      context.fillStyle = "#000";
      context.fillText(text, spot[0] + size * 0.35, spot[1] + height / 2 + size * 0.06);
      break;
    }
  }
}

/** All that is wanted, then what is short; in a small picture only what is short. */
function texts(object, options, isSmall) {
  const id = options.ids && object.track_id != null ? `#${object.track_id}` : "";
  if (isSmall) return [(options.labels && object.class) || id].filter(Boolean);
  const parts = [id, options.labels ? object.class : "", options.scores ? object.score.toFixed(2) : ""];
  const whole = parts.filter(Boolean).join(" ");
  return [...new Set([whole, id])].filter(Boolean);
}

/** Above the box, below it, inside at the top, inside at the bottom: those that lie in the picture. */
function spots([left, top, right, bottom], width, height, place) {
  const edge = place.left + place.width - width;
  const x = Math.max(place.left, Math.min(left, edge));
  const lowest = place.top + place.height - height;
  const inside = [top - height, bottom, top, bottom - height].filter((y) => y >= place.top && y <= lowest);
  return inside.map((y) => [x, y, x + width, y + height]);
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
