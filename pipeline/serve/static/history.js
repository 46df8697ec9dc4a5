// What was seen of each source in the last two minutes: objects by class from its frames, its rate and age from the
// views. Grows no further than that. Knows no element.

export const SECONDS = 120;

const second = () => Math.floor(performance.now() / 1000);

/** Of one source. Moments are whole seconds of this page. */
export class History {
  /** Mean age at delivery of what was delivered between the last two views, in ms; null where nothing was. */
  age = null;
  #frames = new Map();
  #views = new Map();
  #ages = null;

  /** A frame has come. One without a result counts for nothing: nobody knows what was in it. */
  addFrame(frame) {
    if (frame.status !== "ok") return;
    const bin = entry(this.#frames, { frames: 0, objects: new Map() });
    bin.frames++;
    for (const object of frame.objects) bin.objects.set(object.class, (bin.objects.get(object.class) ?? 0) + 1);
  }

  /** The ages come as sums since the start: what was delivered since the last view is their difference. */
  addView({ frames_per_second: rate, ages }) {
    const frames = (ages?.count ?? 0) - (this.#ages?.count ?? 0);
    const sumMs = (ages?.sum_ms ?? 0) - (this.#ages?.sum_ms ?? 0);
    this.age = frames > 0 && this.#ages ? sumMs / frames : null;
    this.#ages = ages;
    entry(this.#views, { rate, age: this.age });
  }

  /** [class, points] with points of [seconds ago, objects in a frame in the mean], most frequent class first. */
  objects() {
    const sums = new Map();
    for (const { objects } of this.#frames.values())
      for (const [name, number] of objects) sums.set(name, (sums.get(name) ?? 0) + number);
    const names = [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a) || (a < b ? -1 : 1));
    return names.map((name) => [name, points(this.#frames, (bin) => (bin.objects.get(name) ?? 0) / bin.frames)]);
  }

  rates() {
    return points(this.#views, (bin) => bin.rate);
  }

  ages() {
    return points(this.#views, (bin) => bin.age);
  }
}

function entry(bins, empty) {
  const now = second();
  if (!bins.has(now)) {
    bins.set(now, empty);
    for (const old of bins.keys()) {
      if (old >= now - SECONDS) break;
      bins.delete(old);
    }
  }
  return bins.get(now);
}

/** A gap, [seconds ago, null], where nothing was seen for longer than two seconds. */
function points(bins, valueOf) {
  const now = second();
  const made = [];
  let before = null;
  for (const [moment, bin] of bins) {
    if (moment < now - SECONDS) continue;
    if (before !== null && moment - before > 2) made.push([now - before - 1, null]);
    made.push([now - moment, valueOf(bin)]);
    before = moment;
  }
  return made;
}
