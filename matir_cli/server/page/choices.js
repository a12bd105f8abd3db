// Buttons by which one of several values is chosen.

import { element } from "./dom.js";

/**
 * Make a button that is pressed while its value is the chosen one.
 * @param {string} text
 * @param {boolean} isChosen
 * @param {function(): void} click
 * @param {{count?: number, depth?: number}} more a number to show beside it, and how far it is moved in
 */
export function choice(text, isChosen, click, { count, depth = 0 } = {}) {
  const button = element("button", { type: "button", class: "choice", "aria-pressed": String(isChosen), on: { click } },
    element("span", { text }), count === undefined ? null : element("small", { text: count.toLocaleString("en") }));
  button.style.setProperty("--depth", depth);
  return button;
}

/** Put buttons in a row. */
export const row = (...buttons) => element("div", { class: "row" }, ...buttons);
