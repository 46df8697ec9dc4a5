// Makes elements. All text goes in as text, never as markup: names, causes and errors are foreign input.
// Knows nothing of what is shown.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `attributes` as in markup, `on…` are listeners, false and null left out; children are nodes and text. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a part of an SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** One of the icons of index.html; it says nothing to a reader, so text has to stand beside it. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", "aria-hidden": "true", focusable: "false" },
    svg("use", { href: `#icon-${name}` }),
  );
}

/** Changes the icon of `svgElement`. */
export function setIcon(svgElement, name) {
  setAttribute(svgElement.firstChild, "href", `#icon-${name}`);
}

/** Touches the page only where something has changed. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setAttribute(target, name, value) {
  if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
}

export function setHidden(target, hidden) {
  if (target.hidden !== hidden) target.hidden = hidden;
}

/** A button with an icon; with `isBare` its text is only heard, and shown as its tooltip. */
export function button(iconName, text, onclick, { isBare = false, ...attributes } = {}) {
  const label = element("span", { class: isBare ? "hidden-text" : "label" }, text);
  const title = isBare ? text : null;
  return element("button", { type: "button", title, onclick, ...attributes }, iconName && icon(iconName), label);
}

/** A list of terms and what they are, as [[term, value], …]. */
export function terms(pairs, attributes = {}) {
  const rows = pairs.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
  return element("dl", attributes, ...rows);
}
