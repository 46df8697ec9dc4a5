// The keys of the page, and the help that lists them. Letters can be switched off. Knows nothing of what they do.

import { openDialog } from "./controls.js";
import { element } from "./elements.js";
import { read, write } from "./options.js";
import { STATES } from "./words.js";

/** Each: {key, text, does}: `does` is null where it does nothing here. A letter works with neither Ctrl nor Alt. */
export class Keys {
  #keys;

  constructor(keys) {
    this.#keys = keys;
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") || isTyping(event.target)) return;
    if (event.key.length === 1 && event.key !== "?" && read("letters") === false) return;
    const found = this.#keys.find(({ key }) => key === event.key);
    if (found && found.does() !== false) event.preventDefault();
  }

  /** The help, in front of the page. */
  help() {
    if (document.querySelector("dialog[open]")) return;
    const letters = element("input", { type: "checkbox", checked: read("letters") !== false });
    letters.addEventListener("change", () => write("letters", letters.checked));
    const close = element("button", { type: "submit", class: "primary", autofocus: true }, "Close");
    const dialog = element(
      "dialog",
      { "aria-labelledby": "help-title", class: "help" },
      element(
        "form",
        { method: "dialog" },
        element("h2", { id: "help-title" }, "Help and keys"),
        element(
          "dl",
          { class: "keys" },
          ...this.#keys.map(({ name, key, text }) => row(element("kbd", {}, name ?? key), text)),
        ),
        element("label", { class: "check" }, letters, "Letters are keys, too"),
        element("h3", {}, "States of a source"),
        element(
          "dl",
          { class: "keys" },
          ...Object.entries(MEANINGS).map(([state, text]) => row(STATES[state].label, text)),
        ),
        element("div", { class: "actions" }, close),
      ),
    );
    openDialog(dialog);
  }
}

const row = (term, text) => element("div", {}, element("dt", {}, term), element("dd", {}, text));

const MEANINGS = {
  live: "Frames come, and their picture lives",
  lost: "No frames come; the source is opened again and again until it is back. The last picture is grey",
  frozen: "Frames come, but their picture has not changed for long",
  grey: "Frames come, but nothing is to be seen in them",
  paused: "On request",
  ended: "The file is over, or the source was given up",
};

/** Keys are text there, or move something. */
function isTyping(target) {
  return target instanceof Element && target.closest("input:not([type=checkbox]), textarea, select, .scrolls") !== null;
}
