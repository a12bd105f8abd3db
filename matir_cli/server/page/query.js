// A query: what to find and where. It is kept in the page's address, so that the back button works.

const WITHIN = 1000; // metres

/** The query that finds nothing. */
export function emptyQuery() {
  return {
    text: "", without: [], likes: [], unlikes: [], weight: 0.5,
    places: [], since: "", until: "", camera: "", orientation: "", minSize: null, maxSize: null,
    near: null, within: WITHIN, hasPosition: null, rating: null, keywords: [], noKeywords: [],
    unique: false, sort: "score", judge: true,
  };
}

/** Examples that a search takes, good ones and bad ones. */
export const MOST_EXAMPLES = 32;

export const isEmpty = (query) => !query.text.trim() && !query.likes.length;

/** True if the judge can be asked: it needs a text. */
export const asksJudge = (query) => query.judge && query.text.trim() !== "";

/** Return the settings of the HTTP API. */
export function searchBody(query) {
  const { without, places, keywords, noKeywords } = query;
  const body = { without, places, keywords, no_keywords: noKeywords };
  if (query.text.trim()) body.text = query.text.trim();
  if (query.likes.length) {
    body.examples = query.likes.map(exampleBody);
    body.weight = query.weight;
  }
  if (query.unlikes.length) body.unlike = query.unlikes.map(exampleBody);
  for (const name of ["since", "until", "camera", "orientation"]) if (query[name]) body[name] = query[name];
  if (query.minSize !== null) body.min_size = query.minSize;
  if (query.maxSize !== null) body.max_size = query.maxSize;
  if (query.near) Object.assign(body, { near: query.near, within: query.within });
  if (query.hasPosition !== null) body.has_gps = query.hasPosition;
  if (query.rating) body.rating = query.rating;
  if (query.unique) body.unique = true;
  if (query.sort !== "score") body.sort = query.sort;
  return body;
}

const exampleBody = ({ photo, region, box }) => (region ? { region } : box ? { photo, box } : { photo });

const TEXTS = { q: "text", since: "since", until: "until", camera: "camera", shape: "orientation" };
const LISTS = { not: "without", in: "places", keyword: "keywords", "no-keyword": "noKeywords" };
const EXAMPLES = { like: "likes", unlike: "unlikes" };
const NUMBERS = { min: "minSize", max: "maxSize" };

/** Return the part of the page's address after "?", which is empty for the empty query. */
export function toAddress(query) {
  const words = new URLSearchParams();
  for (const [key, name] of Object.entries(TEXTS)) if (query[name]) words.set(key, query[name]);
  for (const [key, name] of Object.entries(LISTS)) for (const each of query[name]) words.append(key, each);
  for (const [key, name] of Object.entries(NUMBERS)) if (query[name] !== null) words.set(key, query[name]);
  for (const [key, name] of Object.entries(EXAMPLES)) {
    for (const { photo, region, box } of query[name]) {
      words.append(key, region ? `${photo}.${region}` : box ? `${photo}~${box.join("~")}` : photo);
    }
  }
  if (query.near) words.set("near", query.near.join("~"));
  if (query.near && query.within !== WITHIN) words.set("within", query.within);
  if (query.hasPosition !== null) words.set("position", query.hasPosition ? "yes" : "no");
  if (query.rating) words.set("rating", query.rating.join("~"));
  if (query.unique) words.set("unique", "yes");
  if (query.sort !== "score") words.set("sort", query.sort);
  if (query.likes.length && query.weight !== 0.5) words.set("weight", query.weight);
  if (!query.judge) words.set("judge", "off");
  return words.toString();
}

/** Return the query in an address; what is wrong in it is left out. */
export function fromAddress(address) {
  const query = emptyQuery();
  const words = new URLSearchParams(address);
  for (const [key, name] of Object.entries(TEXTS)) query[name] = words.get(key) ?? "";
  for (const [key, name] of Object.entries(LISTS)) query[name] = words.getAll(key);
  for (const [key, name] of Object.entries(NUMBERS)) query[name] = share(words.get(key));
  for (const [key, name] of Object.entries(EXAMPLES)) {
    query[name] = words.getAll(key).map(exampleOf).filter((each) => each !== null).slice(0, MOST_EXAMPLES);
  }
  query.near = pair(words.get("near"), [-90, 90], [-180, 180]);
  query.within = numberIn(words.get("within"), 1e-3, 1e9) ?? WITHIN;
  query.hasPosition = { yes: true, no: false }[words.get("position")] ?? null;
  query.rating = pair(words.get("rating"), [-1, 5], [-1, 5]);
  if (query.rating && !query.rating.every(Number.isInteger)) query.rating = null;
  query.unique = words.get("unique") === "yes";
  query.sort = SORTS.includes(words.get("sort")) ? words.get("sort") : "score";
  query.weight = share(words.get("weight")) ?? 0.5;
  query.judge = words.get("judge") !== "off";
  return query;
}

const SORTS = ["score", "taken", "path", "size"];

function numberIn(word, least, most) {
  const number = Number.parseFloat(word ?? "");
  return number >= least && number <= most ? number : null;
}

const share = (word) => numberIn(word, 0, 1);

/** Return two numbers that are separated by "~", each in its range; null if they are none. */
function pair(word, ...ranges) {
  const words = (word ?? "").split("~");
  const numbers = ranges.map(([least, most], index) => numberIn(words[index], least, most));
  return words.length === 2 && !numbers.includes(null) ? numbers : null;
}

function exampleOf(word) {
  const match = /^(\d{1,15})(?:\.(\d{1,15})|((?:~-?[\d.]{1,12}){4}))?$/.exec(word);
  if (match === null) return null;
  const example = { photo: Number(match[1]) };
  if (match[2]) example.region = Number(match[2]);
  if (match[3]) example.box = match[3].slice(1).split("~").map(Number);
  return example;
}
