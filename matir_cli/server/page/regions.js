// A photo with its regions: each lights up under the pointer, and is chosen by a click, a box or keys.

import * as api from "./api.js";
import { announce, element, setAttribute, setText, svg } from "./dom.js";
import { dimmed } from "./grid.js";

const DRAGGED = 6; // pixels from which a movement is a box
const STEP = 0.02; // of the photo, by which keys move a box

export class RegionView {
  /** @param {function({photo, region, box}): void} choose called with an object */
  constructor(choose) {
    this._choose = choose;
    this.item = null;
    this._picture = element("img", { alt: "", draggable: "false" });
    this._found = svg("g", { class: "found" });
    this._regions = svg("g", { role: "group", "aria-label": "Objects in this photo" });
    this._band = svg("rect", { class: "band" });
    this._drawing = svg("svg", { preserveAspectRatio: "none" }, this._found, this._regions, this._band);
    this.figure = element("div", { class: "figure", tabindex: 0, role: "group", "aria-label": "Photo" }, this._picture, this._drawing);
    this.name = element("p", { class: "region-name", "aria-hidden": "true" });
    this._listen();
  }

  clear() {
    this.item = null;
    this._picture.removeAttribute("src");
    this._regions.replaceChildren();
    this._found.replaceChildren();
  }

  async show(item) {
    this.item = item;
    this._setBand(null);
    this._regions.replaceChildren();
    this.figure.style.setProperty("--shape", item.width / item.height);
    this.figure.style.setProperty("--most", `${3 * item.width}px`);
    setAttribute(this._drawing, "viewBox", `0 0 ${2 * item.maskWidth} ${2 * item.maskHeight}`);
    // The picture that the grid has is there at once.
    this._picture.src = api.imageUrl(item.id, 1024);
    this.refresh(item);
    setText(this.name, "");
    const shown = await api.regions(item.id).catch(() => null);
    if (this.item?.id === item.id && shown !== null) this._draw(shown.regions);
  }

  /** Draw the object that was found. */
  refresh(item) {
    this.item = item;
    const drawn = [];
    if (item.outline && !item.isWhole) drawn.push(svg("path", { class: "dim", d: dimmed(item) }), svg("path", { class: "edge", d: item.outline }));
    else if (item.box && !item.isWhole && !item.lacksOutline) {
      const [x0, y0, x1, y1] = this._toDrawing(item.box);
      drawn.push(svg("rect", { class: "box", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }));
    }
    this._found.replaceChildren(...drawn);
  }

  /** Draw the regions, small ones over those around them. */
  _draw(regions) {
    const shown = regions.filter(({ ordinal }) => ordinal > 0).sort((a, b) => b.share - a.share);
    const whole = regions.find(({ ordinal }) => ordinal === 0);
    if (whole && this.item.regionId === whole.id) this.item.region = 0;
    this._regions.replaceChildren(...shown.map((region, index) => svg("path", {
      class: "region", d: region.outline, role: "button", tabindex: index ? -1 : 0, "data-id": region.id,
      "aria-label": `Object ${region.ordinal}, ${sizeText(region.share)} of the photo`,
    })));
    const own = shown.find(({ id }) => id === this.item.regionId);
    if (own && this.item.lacksOutline) {
      this.item.outline = own.outline;
      this.refresh(this.item);
    }
    setText(this.name, shown.length ? `${shown.length} objects to choose from` : "No object was outlined in this photo: draw a box.");
  }

  _listen() {
    const { figure, _drawing: drawing, _regions: regions } = this;
    let start = null;
    drawing.addEventListener("pointerdown", (event) => {
      if (event.button === 0) start = { x: event.clientX, y: event.clientY, target: event.target };
      this._byKeys = false;
    });
    drawing.addEventListener("pointermove", (event) => {
      if (start === null) return;
      if (!this._box && Math.hypot(event.clientX - start.x, event.clientY - start.y) < DRAGGED) return;
      if (!this._box) drawing.setPointerCapture(event.pointerId);
      this._setBand(this._boxOf(start, { x: event.clientX, y: event.clientY }));
    });
    drawing.addEventListener("pointerup", () => {
      const [box, target] = [this._box, start?.target];
      start = null;
      this._setBand(null);
      if (box) this._use({ box });
      else if (target?.matches(".region")) this._use({ region: Number(target.dataset.id) });
    });
    drawing.addEventListener("pointercancel", () => {
      start = null;
      this._setBand(null);
    });
    for (const kind of ["pointerover", "focusin"]) {
      regions.addEventListener(kind, (event) => setText(this.name, event.target.getAttribute("aria-label") ?? ""));
    }
    regions.addEventListener("keydown", (event) => this._regionKey(event));
    figure.addEventListener("keydown", (event) => this._bandKey(event));
  }

  _use({ region, box }) {
    const photo = this.item.id;
    this._choose(region ? { photo, region } : { photo, box });
  }

  _regionKey(event) {
    const all = [...this._regions.children];
    const index = all.indexOf(event.target);
    const target = {
      ArrowLeft: index - 1, ArrowUp: index - 1, ArrowRight: index + 1, ArrowDown: index + 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") this._use({ region: Number(event.target.dataset.id) });
    else if (target !== undefined && !this._byKeys) {
      const next = all[(target + all.length) % all.length];
      setAttribute(event.target, "tabindex", -1);
      setAttribute(next, "tabindex", 0);
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Begin a box that keys move and resize. */
  drawByKeys() {
    const { width, height } = this.item;
    this._byKeys = true;
    this._setBand([0.35 * width, 0.35 * height, 0.65 * width, 0.65 * height]);
    this.figure.focus();
    const text = "Arrows move the box, Shift and arrows change its size, Enter takes it, Escape leaves it.";
    setText(this.name, text);
    announce(text);
  }

  _bandKey(event) {
    if (!this._byKeys || !this._box) return;
    const { width, height } = this.item;
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (x || y) {
      const [dx, dy] = [x * STEP * width, y * STEP * height];
      const [x0, y0, x1, y1] = this._box;
      const moved = event.shiftKey ? [x0, y0, x1 + dx, y1 + dy] : [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
      const inside = moved[0] >= 0 && moved[1] >= 0 && moved[2] <= width && moved[3] <= height;
      if (inside && moved[2] - moved[0] > STEP * width && moved[3] - moved[1] > STEP * height) this._setBand(moved);
    } else if (event.key === "Enter") {
      const box = this._box;
      this._setBand(null);
      this._use({ box });
    } else if (event.key === "Escape") {
      this._setBand(null);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  _setBand(box) {
    this._box = box;
    this._band.classList.toggle("drawn", box !== null);
    if (box === null) {
      this._byKeys = false;
      return;
    }
    const [x0, y0, x1, y1] = this._toDrawing(box);
    for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) setAttribute(this._band, name, value);
  }

  /** Return the box between two points of the window, in photo pixels. */
  _boxOf(one, other) {
    const { left, top, width, height } = this._drawing.getBoundingClientRect();
    const place = (value, start, length, pixels) => Math.max(0, Math.min(1, (value - start) / length)) * pixels;
    const across = [one.x, other.x].map((x) => place(x, left, width, this.item.width)).sort((a, b) => a - b);
    const down = [one.y, other.y].map((y) => place(y, top, height, this.item.height)).sort((a, b) => a - b);
    return [across[0], down[0], across[1], down[1]].map((edge) => Math.round(10 * edge) / 10);
  }

  /** Return a box in photo pixels as one in the drawing's. */
  _toDrawing([x0, y0, x1, y1]) {
    const { width, height, maskWidth, maskHeight } = this.item;
    const [across, down] = [(2 * maskWidth) / width, (2 * maskHeight) / height];
    return [x0 * across, y0 * down, x1 * across, y1 * down];
  }
}

function sizeText(share) {
  return share < 0.01 ? "less than 1%" : `${Math.round(100 * share)}%`;
}
