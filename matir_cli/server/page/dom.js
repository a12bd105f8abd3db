// Elements made from text that may be a stranger's: it never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Object} properties `text` is its text, `on` maps events to listeners; others are attributes, of
 *   which null, undefined and false are left out.
 * @param {...(Node|string|null)} children
 */
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Make an SVG element; arguments as in `element`. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(made, { text, on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(made, name, value);
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set an attribute; null, undefined and false remove it. */
export function setAttribute(changed, name, value) {
  if (value === null || value === undefined || value === false) changed.removeAttribute(name);
  else if (changed.getAttribute(name) !== String(value)) changed.setAttribute(name, value === true ? "" : String(value));
}

/** Set the text of an element, if it is another one: screen readers read changes aloud. */
export function setText(changed, text) {
  if (changed.textContent !== text) changed.textContent = text;
}

export const byId = (id) => document.getElementById(id);

const LOUD = byId("announced");

/** Let screen readers say something. */
export function announce(text) {
  setText(LOUD, text);
}

/** Return "1 photo", "1,200 photos". */
export function countOf(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Return the last part of a path. */
export const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Return a probability for people. */
export function percent(p) {
  if (p > 0.995 && p < 1) return "> 99%";
  if (p < 0.005 && p > 0) return "< 1%";
  return `${Math.round(100 * p)}%`;
}

/** True if a key goes into a text that is being written. */
export function isTyping(event) {
  return event.target.closest?.("input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select") !== null;
}
