// A query: what to find and where. It is kept in the page's address, so that the back button works.

/** The query that finds nothing. */
export function emptyQuery() {
  return {
    text: "", without: [], likes: [], weight: 0.5,
    places: [], since: "", until: "", camera: "", orientation: "", minSize: null, maxSize: null,
    judge: true,
  };
}

/** Examples that a search takes. */
export const MOST_LIKES = 1;

export const isEmpty = (query) => !query.text.trim() && !query.likes.length;

/** True if the judge can be asked: it needs a text. */
export const asksJudge = (query) => query.judge && query.text.trim() !== "";

/** Return the settings of the HTTP API. */
export function searchBody(query) {
  const body = { without: query.without, places: query.places };
  if (query.text.trim()) body.text = query.text.trim();
  if (query.likes.length) {
    const { photo, region, box } = query.likes[0];
    body.example = region ? { region } : box ? { photo, box } : { photo };
    body.weight = query.weight;
  }
  for (const name of ["since", "until", "camera", "orientation"]) if (query[name]) body[name] = query[name];
  if (query.minSize !== null) body.min_size = query.minSize;
  if (query.maxSize !== null) body.max_size = query.maxSize;
  return body;
}

const TEXTS = { q: "text", since: "since", until: "until", camera: "camera", shape: "orientation" };
const LISTS = { not: "without", in: "places" };
const NUMBERS = { min: "minSize", max: "maxSize" };

/** Return the part of the page's address after "?", which is empty for the empty query. */
export function toAddress(query) {
  const words = new URLSearchParams();
  for (const [key, name] of Object.entries(TEXTS)) if (query[name]) words.set(key, query[name]);
  for (const [key, name] of Object.entries(LISTS)) for (const each of query[name]) words.append(key, each);
  for (const [key, name] of Object.entries(NUMBERS)) if (query[name] !== null) words.set(key, query[name]);
  for (const { photo, region, box } of query.likes) {
    words.append("like", region ? `${photo}.${region}` : box ? `${photo}~${box.join("~")}` : photo);
  }
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
  query.likes = words.getAll("like").map(likeOf).filter((like) => like !== null).slice(0, MOST_LIKES);
  query.weight = share(words.get("weight")) ?? 0.5;
  query.judge = words.get("judge") !== "off";
  return query;
}

function share(word) {
  const number = Number.parseFloat(word ?? "");
  return number >= 0 && number <= 1 ? number : null;
}

function likeOf(word) {
  const match = /^(\d{1,15})(?:\.(\d{1,15})|((?:~-?[\d.]{1,12}){4}))?$/.exec(word);
  if (match === null) return null;
  const like = { photo: Number(match[1]) };
  if (match[2]) like.region = Number(match[2]);
  if (match[3]) like.box = match[3].slice(1).split("~").map(Number);
  return like;
}
