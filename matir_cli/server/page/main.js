// The page: it starts searches, and shows what they find.

import * as api from "./api.js";
import { byId, countOf, element, isTyping, setText, svg } from "./dom.js";
import { showFilters } from "./filters.js";
import { Grid, headingsOf } from "./grid.js";
import { notifyError, notifyFacts, withdraw } from "./notices.js";
import { PhotoDialog } from "./photo.js";
import { ProgressLine } from "./progress.js";
import { emptyQuery, fromAddress, isEmpty, MOST_EXAMPLES, toAddress } from "./query.js";
import { forgetTexts, recentTexts, rememberText } from "./recent.js";
import { DEEPEST, plainItem, Search } from "./search.js";
import { Selection, showSelection } from "./selection.js";

const DEPTH = 200; // photos that are shown at first
const PAUSE = 200; // milliseconds between two changes of the order

let facts = { photos: 0, folders: [], months: [], cameras: [], keywords: [], located: 0, rated: 0, undated: 0, judgeable: "" };
let query = emptyQuery();
let search = null;
let earlier = []; // searches that found photos which may still be selected
let timer = null;
let retryTimer = null;

const selection = new Selection();
const grid = new Grid(byId("results"), selection, (item) => openPhoto(item, true));
const progress = new ProgressLine({
  stop: () => search?.stop(),
  judgeMore: () => judgeMore(),
  changed: () => draw(false),
});
const dialog = new PhotoDialog({
  neighbour: (item, steps) => grid.neighbour(item.id, steps),
  selection,
  use: useExample,
  explain: async (item) => search?.explain(item) ?? null,
  near: (position) => leaveFor({ ...query, near: position, hasPosition: null }),
  hasQuery: () => !isEmpty(query),
  shown: (item) => history.replaceState({ photo: true }, "", `#photo-${item.id}`),
  closed: photoClosed,
});
const showChips = showFilters(byId("filters"), () => facts, (changed) => go(changed));
showSelection(selection, () => [search, ...earlier].flatMap((each) => (each ? [each.ids.judged, each.ids.ranked] : [])).filter(Boolean).slice(0, 8));

// Searching

/** Search, and put the search into the history. */
function go(changed) {
  const address = toAddress(changed);
  if (address !== toAddress(query) || location.hash) history.pushState({}, "", address ? `/?${address}` : "/");
  run(changed);
}

function run(changed, { depth = DEPTH, effort = 0, inherit = false } = {}) {
  const previous = search;
  clearTimeout(retryTimer);
  withdraw("error");
  query = changed;
  drawQuery();
  if (search) {
    search.leave();
    earlier = [search, ...earlier].slice(0, 2);
  }
  if (isEmpty(query)) {
    search = null;
    showStart();
    return;
  }
  byId("start").hidden = true;
  search = new Search(query, { depth, effort, judge: facts.judgeable === undefined }, changedSearch);
  if (inherit) search.inherit(previous);
  else {
    progress.reset();
    selection.set([]);
    grid.show([]);
    scrollTo({ top: 0 });
  }
  setText(byId("title"), query.text.trim() || "Photos with this object");
  document.title = `${query.text.trim() || "Like an example"} – MaTIR`;
  progress.show(search, 0);
  search.start();
}

/** Ask the judge about more photos of the same search: those that it left out, then twice as many. */
function judgeMore() {
  const { depth, effort } = search.wanted;
  run(query, { depth, effort: search.complete ? effort + 1 : effort, inherit: true });
}

function changedSearch(changed) {
  if (changed !== search) return;
  if (changed.state === "failed") {
    const seconds = notifyError(changed.error, () => retry());
    if (seconds !== null) retryTimer = setTimeout(retry, 1000 * seconds);
  }
  if (changed.state === "over" && query.text.trim() && changed.items.size) {
    rememberText(query.text.trim());
    drawRecent();
  }
  // Verdicts that come quickly move the photos together, not one by one.
  if (timer === null) timer = setTimeout(() => { timer = null; draw(true); }, grid.items.length ? PAUSE : 0);
}

function retry() {
  if (search === null) start();
  else run(query, { ...search.wanted, inherit: true });
}

function draw(move) {
  if (search === null) return;
  const items = search.ordered(progress.least);
  progress.show(search, items.length);
  const waits = !items.length && search.state === "ranking";
  if (!waits) grid.show(items, { headings: headingsOf(items), move });
  drawMore();
  if (!dialog.isOpen) return;
  const item = search.items.get(dialog.item.id);
  if (item) dialog.refresh(item);
}

function drawMore() {
  const { depth } = search.wanted;
  const more = search.ranked === depth && depth < DEEPEST && search.state !== "ranking";
  const button = element("button", { type: "button", text: "Show more", on: {
    click: () => run(query, { ...search.wanted, depth: DEEPEST, inherit: true }) } });
  if (more !== Boolean(byId("more").firstChild)) byId("more").replaceChildren(...(more ? [button] : []));
}

// The query

function drawQuery() {
  if (document.activeElement !== byId("text") || byId("text").value.trim() !== query.text) byId("text").value = query.text;
  byId("judge").checked = query.judge;
  showChips(query);
  byId("likes").replaceChildren(...["likes", "unlikes"].flatMap((list) => query[list].map((each) => exampleChip(each, list))));
  byId("weight").hidden = !(query.likes.length && query.text.trim());
  byId("weight").querySelector("input").value = 100 * query.weight;
}

/** Make the chip of an example, which shows the object. */
function exampleChip(example, list) {
  const picture = svg("svg", { "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" });
  Promise.all([api.photo(example.photo), example.region ? api.regions(example.photo) : null]).then(([photo, shown]) => {
    const box = example.box ?? shown?.regions.find(({ id }) => id === example.region)?.box ?? [0, 0, photo.width, photo.height];
    setViewBox(picture, box);
    picture.append(svg("image", { href: api.imageUrl(photo.id, 320), width: photo.width, height: photo.height }));
  }).catch(() => {});
  const [kind, label] = list === "likes" ? ["like", "Remove the example"] : ["like unlike", "Remove what is not wanted"];
  return element("span", { class: kind }, picture, element("button", {
    type: "button", class: "remove", "aria-label": label,
    on: { click: () => go({ ...query, [list]: query[list].filter((each) => each !== example) }) },
  }));
}

function setViewBox(picture, [x0, y0, x1, y1]) {
  picture.setAttribute("viewBox", `${x0} ${y0} ${Math.max(1, x1 - x0)} ${Math.max(1, y1 - y0)}`);
}

function useExample(example, use) {
  const next = use === "find" ? { ...emptyQuery(), judge: query.judge } : { ...query };
  const word = JSON.stringify(example); // one object is not both wanted and unwanted
  for (const list of ["likes", "unlikes"]) next[list] = next[list].filter((each) => JSON.stringify(each) !== word);
  const list = use === "unlike" ? "unlikes" : "likes";
  next[list] = [...next[list], example].slice(-MOST_EXAMPLES);
  leaveFor(next);
}

/** Leave the photo that is large for a search. */
function leaveFor(next) {
  history.replaceState({}, "", location.pathname + location.search);
  dialog.close();
  go(next);
}

// The start

async function showStart() {
  document.title = "MaTIR";
  setText(byId("title"), "The newest photos");
  progress.hide();
  selection.set([]);
  byId("more").replaceChildren();
  drawStart();
  const photos = await api.newestPhotos(DEPTH).catch((error) => { failStart(error); return []; });
  if (search === null) grid.show(photos.map(plainItem));
}

function drawStart() {
  const { photos, regions, months, undated } = facts;
  const [first, last] = [months[0]?.month.slice(0, 4), months.at(-1)?.month.slice(0, 4)];
  const years = first === undefined ? "" : first === last ? `, ${first}` : `, ${first} to ${last}`;
  const texts = recentTexts();
  byId("start").hidden = !photos;
  const children = [
    element("p", { class: "lead", text: "Describe an object, or open a photo and click on one." }),
    element("p", { class: "note", text: `${countOf(photos, "photo")}, ${countOf(regions ?? 0, "object")}${years}${undated && first ? `, ${undated.toLocaleString("en")} without a date` : ""}` }),
    toAddress({ ...query, judge: true }) ? element("p", { class: "note", text: "The filters are for the next search; below are the newest of all photos." }) : "",
    texts.length ? element("p", { class: "chips", "aria-label": "Searched for last" },
      ...texts.map((text) => element("button", { type: "button", class: "chip", text, on: { click: () => go({ ...emptyQuery(), text }) } })),
      element("button", { type: "button", class: "quiet", text: "Forget these", on: { click: () => {
        forgetTexts();
        drawRecent();
        drawStart();
        byId("text").focus();
      } } })) : "",
  ];
  byId("start").replaceChildren(...children);
}

function drawRecent() {
  byId("recent").replaceChildren(...recentTexts().map((value) => element("option", { value })));
}

// Photos

function openPhoto(item, isNew) {
  if (isNew) history.pushState({ photo: true }, "", `#photo-${item.id}`);
  dialog.open(item);
}

function photoClosed(item) {
  if (location.hash.startsWith("#photo-")) {
    if (history.state?.photo) history.back();
    else history.replaceState({}, "", location.pathname + location.search);
  }
  if (item) grid.focus(item.id);
}

/** Open the photo that the address names, or close the one that it does not. */
async function followHash() {
  const id = Number(/^#photo-(\d{1,15})$/.exec(location.hash)?.[1]);
  if (!id) {
    if (dialog.isOpen) dialog.close();
    return;
  }
  if (dialog.item?.id === id) return;
  const known = search?.items.get(id) ?? grid.items.find((item) => item.id === id);
  const photo = known ?? await api.photo(id).then(plainItem).catch(() => null);
  if (photo) openPhoto(photo, false);
}

// Events

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  byId("text").blur();
  go({ ...query, text });
  byId("title").focus({ preventScroll: true });
});

byId("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(emptyQuery());
  byId("text").focus();
});

addEventListener("popstate", () => {
  const next = fromAddress(location.search);
  if (toAddress(next) !== toAddress(query)) run(next);
  followHash();
});

addEventListener("pagehide", () => search?.leave());

addEventListener("keydown", (event) => {
  if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || dialog.isOpen) return;
  if (event.key === "/") byId("text").select();
  else if (event.key === "a" && grid.items.length) {
    const all = grid.items.map((item) => item.id);
    selection.set(all.every((id) => selection.has(id)) ? [] : all);
  } else if (event.key === "Escape" && selection.ids.length) selection.set([]);
  else if (event.key === "m") document.body.classList.toggle("maskless");
  else return;
  event.preventDefault();
});

function drawSettings() {
  const judge = element("input", { type: "checkbox", id: "judge", checked: true, on: {
    change: ({ target }) => go({ ...query, judge: target.checked }) } });
  const weight = element("input", { type: "range", min: 0, max: 100, step: 5, on: {
    change: ({ target }) => go({ ...query, weight: target.value / 100 }) } });
  const rows = element("input", { type: "range", min: 120, max: 420, step: 20, value: grid.rowHeight, on: {
    input: ({ target }) => { grid.rowHeight = Number(target.value); grid.relay(); } } });
  byId("filters").append(element("div", { class: "settings" },
    element("label", { id: "weight" }, element("span", { text: "Text" }), weight, element("span", { text: "Example" })),
    element("label", { class: "rows" }, element("span", { text: "Size" }), rows),
    element("label", { class: "switch" }, judge, element("span", { text: "Judge" }))));
  weight.setAttribute("aria-label", "Share of the example");
}

async function failStart(error) {
  const seconds = notifyError(error, start);
  if (seconds !== null) retryTimer = setTimeout(start, 1000 * seconds);
}

async function start() {
  clearTimeout(retryTimer);
  withdraw("error");
  try {
    facts = await api.gallery();
  } catch (error) {
    failStart(error);
    return;
  }
  notifyFacts(facts);
  byId("judge").disabled = facts.judgeable !== undefined;
  const typed = byId("text").value; // while the page was loading
  run(fromAddress(location.search));
  byId("text").value ||= typed;
  followHash();
  if (isEmpty(query) && !location.hash) byId("text").focus();
}

drawSettings();
drawRecent();
start();
