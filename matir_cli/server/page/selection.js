// Photos that are selected, and what they can be downloaded as.

import * as api from "./api.js";
import { announce, byId, countOf, element, setText } from "./dom.js";

export class Selection {
  constructor() {
    this._ids = new Set();
    this._anchor = null;
    this._listeners = [];
  }

  listen(listener) {
    this._listeners.push(listener);
  }

  get ids() {
    return [...this._ids];
  }

  has(id) {
    return this._ids.has(id);
  }

  toggle(id) {
    if (!this._ids.delete(id)) this._ids.add(id);
    this._anchor = id;
    this._changed();
  }

  /** Select all photos from the one selected last (or `from`) to `id`; `ids` is their order. */
  extend(id, ids, from = null) {
    const start = ids.indexOf(this._ids.has(this._anchor) || from === null ? this._anchor : from);
    const end = ids.indexOf(id);
    const [first, last] = start < 0 ? [end, end] : [Math.min(start, end), Math.max(start, end)];
    for (const each of ids.slice(first, last + 1)) this._ids.add(each);
    if (start < 0) this._anchor = id;
    else this._anchor = ids[start];
    this._changed();
  }

  /** Select these photos and no others. */
  set(ids) {
    this._ids = new Set(ids);
    this._anchor = null;
    this._changed();
  }

  _changed() {
    for (const listener of this._listeners) listener();
  }
}

const FORMS = [["cutouts", "Cut-outs"], ["masks", "Masks"], ["coco", "COCO"], ["paths", "Paths"]];

/**
 * Show the bar with what can be done with the selection.
 * @param {Selection} selection
 * @param {function(): string[]} searches ids of the searches that found the photos, on the server
 */
export function showSelection(selection, searches) {
  const bar = byId("selection");
  const [count, note] = [element("strong"), element("span", { class: "note", role: "status" })];
  const buttons = FORMS.map(([form, text]) =>
    element("button", { type: "button", text, "data-form": form, on: { click: () => download(form) } }));
  const clear = element("button", { type: "button", class: "quiet", text: "Clear", on: { click: () => selection.set([]) } });
  bar.append(count, element("span", { class: "forms" }, ...buttons), clear, note);

  selection.listen(() => {
    const { length } = selection.ids;
    if (!length && bar.contains(document.activeElement)) byId("results").querySelector("[tabindex='0']")?.focus();
    bar.hidden = !length;
    setText(count, `${countOf(length, "photo")} selected`);
    setText(note, searches().length ? "" : "Search for something to download masks.");
    for (const button of buttons) button.disabled = !searches().length;
  });

  async function download(form) {
    const [search, ...further] = searches();
    setText(note, "Preparing …");
    for (const button of buttons) button.disabled = true;
    try {
      save(await api.exportFile({ search, further, form, photos: selection.ids }));
      setText(note, "");
      announce("Downloaded.");
    } catch (error) {
      setText(note, error.status === 404 ? "The server has forgotten this search: search again." : error.message);
    }
    for (const button of buttons) button.disabled = false;
  }
}

function save({ content, name }) {
  const address = URL.createObjectURL(content);
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
