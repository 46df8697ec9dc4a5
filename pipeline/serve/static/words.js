// How things are called and numbers written: states, durations, times of day. Knows no element.

/** What each state of a source is called, its icon, and whether its picture is of now. */
export const STATES = {
  live: { label: "live", icon: "live", isNow: true },
  opening: { label: "opening", icon: "opening", isNow: false },
  lost: { label: "reconnecting", icon: "lost", isNow: false },
  frozen: { label: "frozen", icon: "frozen", isNow: true },
  grey: { label: "grey", icon: "grey", isNow: true },
  paused: { label: "paused", icon: "paused", isNow: false },
  ended: { label: "ended", icon: "ended", isNow: false },
  leaving: { label: "leaving", icon: "leaving", isNow: false },
};

/** Also of a state that this page does not know. */
export function stateOf(name) {
  return Object.hasOwn(STATES, name) ? STATES[name] : { label: String(name), icon: "opening", isNow: false };
}

const HEADLINES = {
  opening: (since) => `Opening since ${since}`,
  lost: (since) => `No signal since ${since}`,
  frozen: (since) => `Frozen: the same picture since ${since}`,
  grey: (since) => `Grey: nothing to be seen since ${since}`,
  paused: (since) => `Paused since ${since}`,
  ended: (since) => `Ended at ${since}`,
  leaving: () => "Being removed",
};

/** What a source that is not live is told to be, in two lines: [what and since when, why]. Null where it is live. */
export function bannerOf(source, nowUnix) {
  const headline = Object.hasOwn(HEADLINES, source.state) ? HEADLINES[source.state] : null;
  if (!headline) return null;
  const lasted = source.state === "ended" ? "" : ` (${duration(nowUnix - source.since_unix)})`;
  const text = headline(timeOfDay(source.since_unix)) + (source.state === "leaving" ? "" : lasted);
  return [text, source.cause || ""];
}

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** "14:03:22", with the day where that is not today. */
export function timeOfDay(unix) {
  const moment = new Date(unix * 1000);
  const isToday = moment.toDateString() === new Date().toDateString();
  return isToday ? TIME.format(moment) : `${DAY.format(moment)} ${TIME.format(moment)}`;
}

/** "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"; "2 min" where that is all. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes, rest] = [whole / 86400, (whole / 3600) % 24, (whole / 60) % 60, whole % 60].map(
    Math.floor,
  );
  const [large, small] = days
    ? [`${days} d`, hours && `${hours} h`]
    : hours
      ? [`${hours} h`, minutes && `${minutes} min`]
      : minutes
        ? [`${minutes} min`, rest && `${rest} s`]
        : [`${rest} s`, ""];
  return small ? `${large} ${small}` : large;
}

const COUNT = new Intl.NumberFormat("en-GB");

/** "12,345" */
export function count(number) {
  return COUNT.format(number);
}

/** "3 objects", "1 object" */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** "41 ms", "1.2 s"; "–" for what is not known. */
export function milliseconds(ms) {
  if (ms == null || !Number.isFinite(ms)) return "–";
  if (ms >= 9999.5) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 999.5) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

/** "9.9" */
export function rate(perSecond) {
  return perSecond == null ? "–" : perSecond.toFixed(1);
}

/** "312 MiB" */
export function bytes(size) {
  return size == null ? "–" : `${count(Math.round(size / 2 ** 20))} MiB`;
}
