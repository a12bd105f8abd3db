// Filters as chips. Each is one entry of FILTERS: what it is called, what it says, and how it is edited.

import { choice, row } from "./choices.js";
import { countOf, element, fileName } from "./dom.js";
import { histogram } from "./histogram.js";
import { KEYWORDS, PLACE, RATING } from "./metadata_filters.js";

/**
 * A filter.
 * @typedef {Object} Filter
 * @property {string} name
 * @property {string} label what it is called while it is not set
 * @property {function(Object): boolean} [isOffered] whether the gallery, by its facts, has photos to tell apart by it
 * @property {function(Object): string[]} texts what it says of a query, per value that can be removed
 * @property {function(Object, number): void} remove takes a value out of a query
 * @property {function(Object, Object, function(Object): void): Node[]} edit makes its fields, for a query, the
 *   facts of the gallery and a function that takes changes to the query
 */

const PLACES = {
  name: "places",
  label: "Folder",
  texts: (query) => query.places.map((place) => fileName(place) || place),
  remove: (query, index) => { query.places = query.places.filter((_, each) => each !== index); },
  edit(query, facts, change) {
    const roots = facts.folders.map(({ folder }) => folder);
    const list = element("ul", { class: "choices" });
    const fill = (part) => {
      const shown = facts.folders.filter(({ folder }) => folder.toLowerCase().includes(part.toLowerCase())).slice(0, 100);
      list.replaceChildren(...shown.map(({ folder, files }) => {
        const depth = part ? 0 : roots.filter((root) => folder.startsWith(`${root}/`)).length;
        const name = depth ? fileName(folder) : folder;
        const isChosen = query.places.includes(folder);
        const others = query.places.filter((place) => place !== folder);
        const click = () => change({ places: isChosen ? others : [...others, folder] });
        return element("li", {}, choice(name, isChosen, click, { count: files, depth }));
      }));
    };
    fill("");
    const find = element("input", {
      type: "search", placeholder: "Part of a folder's name", "aria-label": "Part of a folder's name",
      on: { input: (event) => fill(event.target.value) },
    });
    return facts.folders.length > 8 ? [find, list] : [list];
  },
};

const DATES = {
  name: "dates",
  label: "Dates",
  texts({ since, until }) {
    if (!since && !until) return [];
    if (since === until) return [since];
    return [since && until ? `${since} to ${until}` : since ? `since ${since}` : `until ${until}`];
  },
  remove: (query) => Object.assign(query, { since: "", until: "" }),
  edit(query, facts, change) {
    const field = (name, label) => element("label", { text: label }, element("input", {
      type: "text", value: query[name], size: 11, placeholder: "2024-05", pattern: "\\d{4}(-\\d\\d){0,2}",
      title: "Such as 2024, 2024-05 or 2024-05-17", inputmode: "numeric",
      on: { change: (event) => event.target.checkValidity() && change({ [name]: event.target.value }) },
    }));
    const undated = facts.undated ? [element("p", { class: "note", text:
      `${countOf(facts.undated, "photo")} without a date ${facts.undated === 1 ? "does" : "do"} not pass.` })] : [];
    return [
      histogram(facts.months, query, change),
      element("div", { class: "pair" }, field("since", "Since"), field("until", "Until")),
      ...undated,
    ];
  },
};

const CAMERA = {
  name: "camera",
  label: "Camera",
  texts: ({ camera }) => (camera ? [camera] : []),
  remove: (query) => { query.camera = ""; },
  edit(query, facts, change) {
    const list = facts.cameras.slice(0, 50).map(({ camera, photos }) => {
      const isChosen = query.camera === camera;
      return element("li", {}, choice(camera, isChosen, () => change({ camera: isChosen ? "" : camera }), { count: photos }));
    });
    if (!list.length) return [element("p", { class: "note", text: "No photo of this gallery names its camera." })];
    return [element("ul", { class: "choices" }, ...list)];
  },
};

const SHAPES = [["Portrait", "portrait"], ["Landscape", "landscape"], ["Square", "square"]];

const SHAPE = {
  name: "shape",
  label: "Shape",
  texts: ({ orientation }) => SHAPES.filter(([, value]) => value === orientation).map(([text]) => text),
  remove: (query) => { query.orientation = ""; },
  edit: (query, facts, change) => [row(...SHAPES.map(([text, orientation]) => {
    const isChosen = query.orientation === orientation;
    return choice(text, isChosen, () => change({ orientation: isChosen ? "" : orientation }));
  }))],
};

const SIZES = [["Small", null, 0.02], ["Medium", 0.02, 0.2], ["Large", 0.2, null]];
const shareText = (share) => `${Number((100 * share).toPrecision(3))}%`;

const SIZE = {
  name: "size",
  label: "Object size",
  texts({ minSize, maxSize }) {
    if (minSize === null && maxSize === null) return [];
    if (minSize === null) return [`up to ${shareText(maxSize)} of the photo`];
    return [maxSize === null ? `from ${shareText(minSize)} of the photo` : `${shareText(minSize)} to ${shareText(maxSize)} of the photo`];
  },
  remove: (query) => Object.assign(query, { minSize: null, maxSize: null }),
  edit(query, facts, change) {
    const field = (name, label) => element("label", { text: label }, element("span", { class: "unit" }, element("input", {
      type: "number", min: 0, max: 100, step: "any", value: query[name] === null ? "" : Number((100 * query[name]).toPrecision(3)),
      on: { change: ({ target }) => target.checkValidity() && change({ [name]: target.value === "" ? null : target.value / 100 }) },
    }), "%"));
    const presets = SIZES.map(([text, minSize, maxSize]) =>
      choice(text, query.minSize === minSize && query.maxSize === maxSize, () => change({ minSize, maxSize })));
    return [
      element("p", { class: "note", text: "The part of the photo that the object covers" }),
      row(...presets),
      element("div", { class: "pair" }, field("minSize", "From"), field("maxSize", "To")),
    ];
  },
};

const WITHOUT = {
  name: "without",
  label: "Not",
  texts: ({ without }) => without.map((text) => `not ${text}`),
  remove: (query, index) => { query.without = query.without.filter((_, each) => each !== index); },
  edit(query, facts, change) {
    const field = element("input", { type: "text", maxlength: 2000, placeholder: "rope", "aria-label": "What not to find" });
    const submit = (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (text && !query.without.includes(text)) change({ without: [...query.without, text] });
    };
    return [element("form", { class: "pair", on: { submit } }, field, element("button", { type: "submit", text: "Add" }))];
  },
};

const COPIES = {
  name: "unique",
  label: "Near-copies",
  texts: ({ unique }) => (unique ? ["near-copies once"] : []),
  remove: (query) => { query.unique = false; },
  edit: (query, facts, change) => [
    element("p", { class: "note", text: "Near-copies of a photo, and others of its burst, can be left out where a better one is found." }),
    row(choice("Show all", !query.unique, () => change({ unique: false })), choice("Show once", query.unique, () => change({ unique: true }))),
  ],
};

const ORDERS = [["Best first", "score"], ["Oldest first", "taken"], ["By path", "path"], ["Largest object first", "size"]];

const ORDER = {
  name: "sort",
  label: "Order",
  texts: ({ sort }) => ORDERS.slice(1).filter(([, value]) => value === sort).map(([text]) => text.toLowerCase()),
  remove: (query) => { query.sort = "score"; },
  edit: (query, facts, change) => [row(...ORDERS.map(([text, sort]) => choice(text, query.sort === sort, () => change({ sort }))))],
};

/** All filters, in the order of their chips. @type {Filter[]} */
export const FILTERS = [PLACES, DATES, CAMERA, SHAPE, SIZE, PLACE, RATING, KEYWORDS, WITHOUT, COPIES, ORDER];

/**
 * Show the chips.
 * @param {HTMLElement} place
 * @param {function(): Object} facts of the gallery
 * @param {function(Object): void} search called with a new query
 * @returns {function(Object): void} shows the chips of a query
 */
export function showFilters(place, facts, search) {
  const panel = element("div", { id: "panel", popover: "auto", role: "dialog" });
  const chips = element("div", { class: "chips" });
  place.append(chips, panel);
  let query;
  let editing = null;
  let hadFocus = false;

  // By the time of "toggle", the browser may have taken the focus out of the panel, to nowhere.
  panel.addEventListener("beforetoggle", () => { hadFocus = panel.contains(document.activeElement); });

  panel.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    const chip = chips.querySelector(`[data-filter="${editing}"]`);
    chip?.setAttribute("aria-expanded", "false");
    if (hadFocus) chip?.focus();
    editing = null;
  });

  function show(shown) {
    query = shown;
    const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    chips.replaceChildren(...FILTERS.flatMap(chipsOf));
    if (focused !== null) [...chips.children].find((each) => each.querySelector?.(`[data-key="${focused}"]`) ?? each.dataset.key === focused)?.focus();
    if (editing !== null) fill(FILTERS.find(({ name }) => name === editing));
  }

  function chipsOf(filter) {
    const set = filter.texts(query).map((text, index) => element("span", { class: "chip set" },
      element("button", { type: "button", text, "data-key": `${filter.name}${index}`, on: { click: () => open(filter) } }),
      element("button", {
        type: "button", class: "remove", "aria-label": `Remove ${text}`,
        on: { click: () => {
          const changed = { ...query };
          filter.remove(changed, index);
          search(changed);
          chips.querySelector(`[data-filter="${filter.name}"]`)?.focus();
        } },
      })));
    if (!set.length && filter.isOffered && !filter.isOffered(facts())) return [];
    return [...set, element("button", {
      type: "button", class: "chip", "data-filter": filter.name, "data-key": filter.name, text: filter.label,
      "aria-haspopup": "dialog", "aria-expanded": String(editing === filter.name), on: { click: () => open(filter) },
    })];
  }

  function open(filter) {
    if (editing === filter.name) {
      panel.hidePopover();
      return;
    }
    if (panel.matches(":popover-open")) panel.hidePopover();
    editing = filter.name;
    fill(filter);
    panel.showPopover();
    const chip = chips.querySelector(`[data-filter="${filter.name}"]`);
    chip.setAttribute("aria-expanded", "true");
    const { left, bottom } = chip.getBoundingClientRect();
    panel.style.left = `${Math.max(8, Math.min(left, innerWidth - panel.offsetWidth - 8))}px`;
    panel.style.top = `${bottom + 6}px`;
    panel.style.maxHeight = `${Math.max(160, innerHeight - bottom - 20)}px`;
    panel.querySelector("input, button")?.focus();
  }

  /** Show the fields of a filter; the one that has the focus keeps it. */
  function fill(filter) {
    const fields = () => [...panel.querySelectorAll("input, button")];
    const focused = fields().indexOf(document.activeElement);
    panel.setAttribute("aria-label", filter.label);
    panel.replaceChildren(...filter.edit(query, facts(), (changes) => search({ ...query, ...changes })));
    if (focused >= 0) fields()[Math.min(focused, fields().length - 1)]?.focus();
  }

  return show;
}
