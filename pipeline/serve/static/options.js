// What is drawn above the pictures, as chosen here and kept in this browser. Knows no canvas.

export const CHOICES = [
  { name: "boxes", text: "Boxes", key: "b" },
  { name: "labels", text: "Classes", key: "c" },
  { name: "scores", text: "Scores", key: "s" },
  { name: "ids", text: "Track ids", key: "i" },
  { name: "trails", text: "Trails", key: "t" },
  { name: "zones", text: "Zones", key: "z" },
];
const USUAL = { boxes: true, labels: true, scores: false, ids: true, trails: true, zones: true };

/** True and false by the names of `CHOICES`. */
export const options = { ...USUAL, ...kept() };

function kept() {
  const found = read("options") ?? {};
  return Object.fromEntries(
    CHOICES.filter(({ name }) => typeof found[name] === "boolean").map(({ name }) => [name, found[name]]),
  );
}

export function choose(name, isOn) {
  options[name] = isOn;
  write("options", options);
}

/** What was kept under a name in this browser; null where nothing can be. */
export function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // No storage: it holds as long as the page is open.
  }
}
