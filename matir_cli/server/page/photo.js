// A photo large, with its regions, and the reasons why it is among the results.

import * as api from "./api.js";
import { byId, element, fileName, isTyping, setText } from "./dom.js";
import { explained, reasons } from "./reasons.js";
import { RegionView } from "./regions.js";

const PAUSE = 150; // milliseconds for which a photo is shown before it is explained

const USES = [
  ["find", "Find this object", "What you click on, or draw a box around, is found in all photos."],
  ["like", "Like this too", "What you click on, or draw a box around, becomes one more example of what you look for."],
  ["unlike", "Not this", "What you click on, or draw a box around, is not what you look for."],
];

export class PhotoDialog {
  /**
   * @param {Object} page
   * @param {function(Item, number): ?Item} page.neighbour the next or the previous photo
   * @param {Selection} page.selection
   * @param {function({photo, region, box}, string): void} page.use called with an object and what it is for
   * @param {function(Item): Promise<?Object>} page.explain returns where the score and the mask of a photo come from
   * @param {function([number, number]): void} page.near called with the position near which to search
   * @param {function(): boolean} page.hasQuery whether there is a query to add to
   * @param {function(Item): void} page.shown called when another photo is shown
   * @param {function(Item): void} page.closed
   */
  constructor(page) {
    this.page = page;
    this.dialog = byId("photo");
    this.item = null;
    this._use = "find";
    this.view = new RegionView((example) => page.use(example, this._use));
    this._build();
    this.dialog.addEventListener("close", () => {
      const { item } = this;
      this.item = null;
      clearTimeout(this._timer);
      this.view.clear();
      page.closed(item);
    });
    this.dialog.addEventListener("keydown", (event) => this._key(event));
    page.selection.listen(() => this._drawTick());
  }

  get isOpen() {
    return this.dialog.open;
  }

  _build() {
    const button = (name, label, click) => element("button", { type: "button", class: name, "aria-label": label, on: { click } });
    this._title = element("h2", { id: "photo-title" });
    this._tick = element("button", { type: "button", class: "choose", on: { click: () => this.page.selection.toggle(this.item.id) } });
    this._uses = element("fieldset", { class: "uses" }, element("legend", { class: "hidden", text: "What a click on an object does" }));
    this._hint = element("p", { class: "note" });
    this._facts = element("dl");
    this._why = element("section", { class: "why", "aria-label": "Where the score comes from" });
    this._near = element("button", { type: "button", text: "Find photos from here", on: {
      click: () => this.page.near([this.item.latitude, this.item.longitude]) } });
    this._whole = element("button", { type: "button", text: "Find photos like this one", on: {
      click: () => this.page.use({ photo: this.item.id }, this._use) } });
    this._box = element("button", { type: "button", text: "Draw a box by keys", on: { click: () => this.view.drawByKeys() } });
    this.dialog.append(
      element("div", { class: "stage" }, this.view.figure,
        button("previous", "Previous photo", () => this._go(-1)), button("next", "Next photo", () => this._go(1))),
      element("div", { class: "side" },
        element("div", { class: "head" }, this._title, button("close", "Close", () => this.dialog.close())),
        this._uses, this._hint, this.view.name,
        element("div", { class: "actions" }, this._tick, this._whole, this._near, this._box),
        this._facts, this._why),
    );
  }

  /** Show a photo. */
  open(item) {
    this.item = item;
    setText(this._title, fileName(item.path));
    this._title.title = item.path;
    this.view.show(item);
    this._drawUses();
    this._drawTick();
    this._showWhy(null);
    this._drawFacts();
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.view.figure.focus();
    }
    for (const steps of [1, -1]) {
      const next = this.page.neighbour(item, steps);
      if (next) new Image().src = api.imageUrl(next.id, 1024);
    }
    for (const [name, steps] of [["previous", -1], ["next", 1]]) {
      this.dialog.querySelector(`.${name}`).disabled = this.page.neighbour(item, steps) === null;
    }
  }

  /** Show what has become known of the photo that is open. */
  refresh(item) {
    this.item = item;
    this.view.refresh(item);
    this._drawFacts();
  }

  close() {
    this.dialog.close();
  }

  _go(steps) {
    const next = this.page.neighbour(this.item, steps);
    if (next === null) return;
    this.open(next);
    this.page.shown(next);
  }

  _drawUses() {
    const uses = this.page.hasQuery() ? USES : USES.slice(0, 1);
    if (!uses.some(([use]) => use === this._use)) this._use = "find";
    const legend = this._uses.firstChild;
    const labels = uses.map(([use, text, hint]) => {
      const radio = element("input", { type: "radio", name: "use", value: use, on: { change: () => {
        this._use = use;
        setText(this._hint, hint);
      } } });
      radio.checked = use === this._use;
      if (radio.checked) setText(this._hint, hint);
      return element("label", {}, radio, text);
    });
    this._uses.replaceChildren(legend, ...(labels.length > 1 ? labels : []));
  }

  _drawTick() {
    if (this.item === null) return;
    const chosen = this.page.selection.has(this.item.id);
    setText(this._tick, chosen ? "Selected" : "Select");
    this._tick.setAttribute("aria-pressed", String(chosen));
  }

  _drawFacts() {
    const { item } = this;
    this._near.hidden = item.latitude === undefined || !this.page.hasQuery();
    const place = item.latitude === undefined ? "" : `${item.latitude.toFixed(4)}, ${item.longitude.toFixed(4)}`;
    const rows = [...reasons(item), ["File", item.path], ["Taken", item.taken?.replace("T", " ")], ["Camera", item.camera],
      ["Place", place], ["Rating", item.rating === -1 ? "rejected" : item.rating ? "★".repeat(item.rating) : ""],
      ["Keywords", item.keywords?.join(", ")], ["Size", `${item.width} × ${item.height} pixels`]];
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._explain(item), PAUSE);
    this._facts.replaceChildren(...rows.filter(([, text]) => text).flatMap(([name, text, share]) => {
      const value = element("dd", { text });
      if (share !== undefined) {
        const meter = element("span", { class: "meter", "aria-hidden": "true" });
        meter.style.setProperty("--share", share);
        value.append(meter);
      }
      return [element("dt", { text: name }), value];
    }));
  }

  /** Show where the score comes from, anew only if something has become known since. */
  async _explain(item) {
    const known = `${item.p} ${item.grounding}`;
    if (item.known !== known) Object.assign(item, { known, explanation: this.page.explain(item) });
    const explanation = await item.explanation;
    if (this.item !== item || item.known !== known || this._explained === explanation) return;
    this._showWhy(explanation);
  }

  _showWhy(explanation) {
    this._explained = explanation;
    const details = this._why.querySelector("details");
    if (details) this._isOpen = details.open; // those of the next explanation stay so
    this._why.replaceChildren(...(explanation ? explained(explanation) : []));
    for (const each of this._why.querySelectorAll("details")) each.open = this._isOpen === true;
  }

  _key(event) {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("fieldset")) return; // arrows choose between the radio buttons
    if (event.key === "ArrowLeft") this._go(-1);
    else if (event.key === "ArrowRight") this._go(1);
    else if (event.key === "x") this.page.selection.toggle(this.item.id);
    else if (event.key === "b") this.view.drawByKeys();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
