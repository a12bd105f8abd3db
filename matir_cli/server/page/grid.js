// The photos as rows of equal width. Only those near the window are in the document.

import * as api from "./api.js";
import { countOf, element, fileName, isTyping, percent, setAttribute, setText, svg } from "./dom.js";
import { justify, rowsBetween } from "./layout.js";
import { FOUND, OPEN } from "./search.js";

const HEADING = 44; // pixels
const WAIT = 80; // milliseconds in which outlines are collected that are fetched together
const MOST_OUTLINES = 100;
const OUTSIDE = 99; // half working pixels by which what is darkened goes beyond a photo, so that its edge is not drawn

/** Return the path data that darkens all of a photo, and `beyond` of its edges, but the object. */
export const dimmed = (item, beyond = 0) =>
  `M${-beyond} ${-beyond}H${2 * item.maskWidth + beyond}V${2 * item.maskHeight + beyond}H${-beyond}z${item.outline}`;

export class Grid {
  /**
   * @param {HTMLElement} list
   * @param {Selection} selection
   * @param {function(Item)} open called to see a photo large
   */
  constructor(list, selection, open) {
    Object.assign(this, { list, selection, open, items: [], rowHeight: 220 });
    this._tiles = new Map(); // id -> tile
    this._layout = justify([], 1, { height: 1, gap: 0, heading: 0 });
    this._index = new Map(); // id -> position
    this._active = null; // id of the photo that is in the tab order
    this._drawing = this._fetching = false;
    this._drawn = ""; // rows in the document
    addEventListener("scroll", () => this._plan(), { passive: true });
    new ResizeObserver(() => this._resize()).observe(list);
    list.addEventListener("click", (event) => this._click(event));
    list.addEventListener("keydown", (event) => this._key(event));
    list.addEventListener("keyup", (event) => event.key === " " && event.preventDefault());
    list.addEventListener("focusin", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this._activate(Number(tile.dataset.id));
    });
    selection.listen(() => this._draw());
  }

  /**
   * Show photos in this order.
   * @param {Item[]} items
   * @param {{headings: ?string[], move: boolean}} how text of the groups' headings; whether photos that stay
   *   move to their new places
   */
  show(items, { headings = null, move = false } = {}) {
    this.items = items;
    this._texts = headings;
    this._index = new Map(items.map((item, index) => [item.id, index]));
    if (!this._index.has(this._active)) this._active = items[0]?.id ?? null;
    this.list.classList.toggle("moving", move);
    this._lay();
  }

  /** Give the focus to a photo, and scroll to it. */
  focus(id) {
    const index = this._index.get(id);
    if (index === undefined) return;
    this._activate(id);
    const box = this._layout.boxes[index];
    const top = box.y + this._top();
    const header = document.querySelector("header").offsetHeight;
    if (top < scrollY + header) scrollTo({ top: top - header - 12 });
    else if (top + box.height > scrollY + innerHeight - 80) scrollTo({ top: top + box.height - innerHeight + 80 });
    this._draw();
    this._tiles.get(id).querySelector(".open").focus({ preventScroll: true });
  }

  /** Return the photo that is `steps` after another one; null at the ends. */
  neighbour(id, steps) {
    return this.items[(this._index.get(id) ?? -2) + steps] ?? null;
  }

  /** Lay the photos out anew. */
  relay() {
    this.list.classList.remove("moving");
    this._lay();
  }

  _resize() {
    if (this.list.clientWidth !== this._width) this._lay();
  }

  _lay() {
    this._width = this.list.clientWidth;
    const height = Math.max(96, Math.min(this.rowHeight, this._width * 0.4));
    const heading = this._texts ? HEADING : 0;
    const groups = this._texts ? this.items : this.items.map(({ shape }) => ({ shape, group: 0 }));
    this._layout = justify(groups, this._width, { height, gap: this._width < 600 ? 4 : 8, heading });
    this.list.style.height = `${this._layout.height}px`;
    this._draw();
  }

  /** Draw before the next frame. */
  _plan() {
    if (this._drawing) return;
    this._drawing = true;
    requestAnimationFrame(() => {
      this._drawing = false;
      this.list.classList.remove("moving");
      this._draw(true);
    });
  }

  _top() {
    return this.list.getBoundingClientRect().top + scrollY;
  }

  /**
   * Put the photos near the window into the document, and take the others out.
   * @param {boolean} scrolled nothing else has changed
   */
  _draw(scrolled = false) {
    const start = scrollY - this._top();
    const margin = Math.max(400, innerHeight * 0.75);
    const range = rowsBetween(this._layout.rows, start - margin, start + innerHeight + margin);
    if (scrolled && String(range) === this._drawn) return;
    this._drawn = String(range);
    const seen = new Set();
    if (range !== null) {
      const [first, last] = [this._layout.rows[range[0]].first, this._layout.rows[range[1]].last];
      for (let index = first; index <= last; index++) seen.add(this.items[index].id);
    }
    if (this._active !== null && this.list.contains(document.activeElement)) seen.add(this._active);
    for (const [id, tile] of this._tiles) {
      if (seen.has(id)) continue;
      tile.remove();
      this._tiles.delete(id);
    }
    const missing = [];
    for (const id of seen) {
      const index = this._index.get(id);
      if (index === undefined) continue;
      const item = this.items[index];
      const tile = this._tiles.get(id);
      if (!tile || !scrolled) this._place(tile ?? this._add(item), item, index);
      if (item.lacksOutline) missing.push(item);
    }
    this._drawHeadings();
    if (missing.length) this._fetch(missing);
  }

  _drawHeadings() {
    const wanted = this._layout.headings;
    const made = [...this.list.querySelectorAll(".group")];
    made.slice(wanted.length).forEach((heading) => heading.remove());
    wanted.forEach(({ y, group }, index) => {
      const heading = made[index] ?? this.list.appendChild(element("li", { class: "group" }, element("h2")));
      heading.style.transform = `translateY(${y}px)`;
      setText(heading.firstChild, this._texts[group]);
    });
  }

  _add(item) {
    const tile = element(
      "li",
      { class: "tile", "data-id": item.id },
      element("button", { class: "open", type: "button" }, element("img", { alt: "", decoding: "async" })),
      element("button", { class: "tick", type: "button", tabindex: -1 }),
    );
    const picture = tile.querySelector("img");
    picture.addEventListener("error", () => {
      picture.replaceWith(element("span", { class: "away", text: "This photo's file is missing, or has changed." }));
    });
    this._tiles.set(item.id, tile);
    this.list.append(tile);
    return tile;
  }

  _place(tile, item, index) {
    const box = this._layout.boxes[index];
    tile.style.transform = `translate(${box.x}px, ${box.y}px)`;
    tile.style.width = `${box.width}px`;
    tile.style.height = `${box.height}px`;
    setAttribute(tile, "aria-setsize", this.items.length);
    setAttribute(tile, "aria-posinset", index + 1);
    const [button, tick] = [tile.querySelector(".open"), tile.querySelector(".tick")];
    const chosen = this.selection.has(item.id);
    tile.classList.toggle("chosen", chosen);
    tile.classList.toggle("unlikely", item.p !== null && item.group !== FOUND);
    setAttribute(button, "aria-label", `${index + 1}. ${fileName(item.path)}, ${scoreText(item)}`);
    setAttribute(button, "tabindex", item.id === this._active ? 0 : -1);
    setAttribute(tick, "aria-label", `Select ${fileName(item.path)}`);
    setAttribute(tick, "aria-pressed", chosen ? "true" : "false");
    const picture = button.querySelector("img");
    if (picture) {
      const pixels = Math.max(box.width, box.height) * devicePixelRatio;
      if (!(Number(picture.dataset.pixels) >= pixels)) {
        const source = api.imageUrl(item.id, pixels);
        picture.dataset.pixels = new URL(source, location.href).searchParams.get("size");
        setAttribute(picture, "src", source);
      }
    }
    this._drawMask(button, item);
    this._drawLine(button, item);
  }

  _drawMask(button, item) {
    let drawn = button.querySelector("svg");
    if (!item.outline || item.isWhole) {
      drawn?.remove();
      return;
    }
    if (!drawn) {
      drawn = svg("svg", { "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" }, svg("path", { class: "dim edged" }));
      button.append(drawn);
    }
    setAttribute(drawn, "viewBox", `0 0 ${2 * item.maskWidth} ${2 * item.maskHeight}`);
    setAttribute(drawn.firstChild, "d", dimmed(item, OUTSIDE));
  }

  _drawLine(button, item) {
    const line = button.querySelector(".line") ?? button.appendChild(
      element("span", { class: "line", "aria-hidden": "true" }, element("b"), element("i")));
    setText(line.children[0], item.p === null ? "" : percent(item.p));
    const likeness = item.likeness === null ? "" : item.likeness.toFixed(3);
    setText(line.children[1], item.plain ? fileName(item.path) : `${likeness}  ${fileName(item.path)}`);
  }

  /** Fetch the outlines of photos that are seen. */
  _fetch(items) {
    if (this._fetching) return;
    this._fetching = true;
    setTimeout(async () => {
      const wanted = items.filter((item) => item.lacksOutline).slice(0, MOST_OUTLINES);
      const found = await api.outlines(wanted.map((item) => item.regionId)).catch(() => null);
      this._fetching = false;
      if (found === null) return;
      for (const item of wanted) if (item.lacksOutline) item.outline = found[item.regionId] ?? null;
      this._draw();
    }, WAIT);
  }

  _activate(id) {
    if (id === this._active) return;
    this._tiles.get(this._active)?.querySelector(".open").setAttribute("tabindex", -1);
    this._active = id;
    this._tiles.get(id)?.querySelector(".open").setAttribute("tabindex", 0);
  }

  _click(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const id = Number(tile.dataset.id);
    const ids = () => this.items.map((item) => item.id);
    if (event.shiftKey) this.selection.extend(id, ids());
    else if (event.ctrlKey || event.metaKey || event.target.closest(".tick")) this.selection.toggle(id);
    else this.open(this.items[this._index.get(id)]);
  }

  _key(event) {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || this._active === null) return;
    const index = this._index.get(this._active);
    const target = {
      ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: this.items.length - 1,
      ArrowUp: this._vertical(index, -1), ArrowDown: this._vertical(index, 1),
      PageUp: this._vertical(index, -3), PageDown: this._vertical(index, 3),
    }[event.key];
    if (target !== undefined) {
      const next = this.items[Math.max(0, Math.min(this.items.length - 1, target))];
      if (event.shiftKey) this.selection.extend(next.id, this.items.map((item) => item.id), this._active);
      this.focus(next.id);
    } else if (event.key === " " || event.key === "x") {
      if (event.shiftKey) this.selection.extend(this._active, this.items.map((item) => item.id));
      else this.selection.toggle(this._active);
    } else return;
    event.preventDefault();
  }

  /** Return the position of the photo above or below another one, by rows. */
  _vertical(index, steps) {
    const { rows, boxes } = this._layout;
    const row = rows.findIndex((each) => each.last >= index);
    const other = rows[Math.max(0, Math.min(rows.length - 1, row + steps))];
    if (other === rows[row]) return index;
    const middle = (position) => boxes[position].x + boxes[position].width / 2;
    const away = (position) => Math.abs(middle(position) - middle(index));
    let best = other.first;
    for (let position = other.first; position <= other.last; position++) if (away(position) < away(best)) best = position;
    return best;
  }
}

/** Return what is known of a photo in a few words. */
function scoreText(item) {
  if (item.plain) return item.taken ? item.taken.slice(0, 10) : "";
  if (item.p !== null) return `${percent(item.p)} likely`;
  return `${item.failed ? "the judge could not answer, " : ""}likeness ${item.likeness.toFixed(3)}`;
}

/** Return the headings of the groups; null if there is only one. */
export function headingsOf(items) {
  const counts = [0, 0, 0];
  for (const item of items) counts[item.group] += 1;
  if (counts[OPEN] === items.length) return null;
  return [
    `${countOf(counts[0], "photo")} with the object`,
    `${countOf(counts[1], "photo")} not judged, by likeness`,
    `${countOf(counts[2], "photo")} probably without it`,
  ];
}
