// Filters by what files say of photos: position, rating, keywords. Entries of the table in filters.js.

import { choice, row } from "./choices.js";
import { element } from "./dom.js";

const KILOMETRE = 1000; // metres

/** Return "500 m", "2.5 km". */
const distanceText = (metres) => (metres < KILOMETRE ? `${metres} m` : `${Number((metres / KILOMETRE).toPrecision(6))} km`);

/** Return latitude and longitude in a text such as "52.52, 13.4"; null if it has none. */
export function positionOf(text) {
  const match = /^\s*([+-]?\d{1,3}(?:\.\d{1,15})?)\s*[,;\s]\s*([+-]?\d{1,3}(?:\.\d{1,15})?)\s*$/.exec(text);
  if (match === null) return null;
  const [latitude, longitude] = [Number(match[1]), Number(match[2])];
  return Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 ? [latitude, longitude] : null;
}

export const PLACE = {
  name: "place",
  label: "Place",
  isOffered: ({ located }) => located > 0,
  texts({ near, within, hasPosition }) {
    const texts = near ? [`within ${distanceText(within)} of ${near.join(", ")}`] : [];
    if (hasPosition !== null) texts.push(hasPosition ? "with a position" : "without a position");
    return texts;
  },
  remove(query, index) {
    if (index === 0 && query.near) query.near = null;
    else query.hasPosition = null;
  },
  edit(query, facts, change) {
    const near = element("input", {
      type: "text", value: query.near?.join(", ") ?? "", placeholder: "52.52, 13.4", title: "Latitude and longitude in degrees",
      on: { change: ({ target }) => {
        const position = positionOf(target.value);
        const isWrong = position === null && target.value.trim() !== "";
        target.setCustomValidity(isWrong ? "Latitude and longitude in degrees, such as 52.52, 13.4" : "");
        if (isWrong) target.reportValidity();
        else change({ near: position, ...(position ? { hasPosition: null } : {}) });
      } },
    });
    const within = element("input", {
      type: "number", min: 0.001, max: 20100, step: "any", value: query.within / KILOMETRE,
      on: { change: ({ target }) => target.value && target.checkValidity() && change({ within: target.value * KILOMETRE }) },
    });
    const having = [["With a position", true], ["Without one", false]].map(([text, value]) =>
      choice(text, query.hasPosition === value, () => change({ near: null, hasPosition: query.hasPosition === value ? null : value })));
    return [
      element("div", { class: "pair" }, element("label", { text: "Near (latitude, longitude)" }, near),
        element("label", { class: "short", text: "Within" }, element("span", { class: "unit" }, within, "km"))),
      element("p", { class: "note", text: "“Find photos from here” in a large photo takes its place." }),
      row(...having),
    ];
  },
};

const [REJECTED, MOST_STARS] = [-1, 5];

const ratingText = ([least, most]) =>
  most === REJECTED ? "rejected" : most === 0 && least === 0 ? "unrated"
    : least === most ? `★ ${least}` : most === MOST_STARS ? `★ ${least} or more` : `★ ${least} to ${most}`;

export const RATING = {
  name: "rating",
  label: "Rating",
  isOffered: ({ rated }) => rated > 0,
  texts: ({ rating }) => (rating ? [ratingText(rating)] : []),
  remove: (query) => { query.rating = null; },
  edit(query, facts, change) {
    const ranges = [...[1, 2, 3, 4, 5].map((stars) => [stars, MOST_STARS]), [0, 0], [REJECTED, REJECTED]];
    return [row(...ranges.map((range) => {
      const isChosen = String(query.rating) === String(range);
      return choice(ratingText(range), isChosen, () => change({ rating: isChosen ? null : range }));
    }))];
  },
};

export const KEYWORDS = {
  name: "keywords",
  label: "Keywords",
  isOffered: ({ keywords }) => keywords.length > 0,
  texts: ({ keywords, noKeywords }) => [...keywords, ...noKeywords.map((each) => `without “${each}”`)],
  remove(query, index) {
    const rest = index - query.keywords.length;
    const without = (list, position) => list.filter((_, each) => each !== position);
    if (rest < 0) query.keywords = without(query.keywords, index);
    else query.noKeywords = without(query.noKeywords, rest);
  },
  edit(query, facts, change) {
    const field = element("input", { type: "text", maxlength: 2000, placeholder: "holiday", "aria-label": "Keyword; * stands for anything" });
    const add = (name) => {
      const text = field.value.trim();
      if (text && !query[name].includes(text)) change({ [name]: [...query[name], text] });
    };
    const submit = (event) => {
      event.preventDefault();
      add("keywords");
    };
    const list = facts.keywords.slice(0, 50).map(({ keyword, files }) => {
      const isChosen = query.keywords.includes(keyword);
      const others = query.keywords.filter((each) => each !== keyword);
      return element("li", {}, choice(keyword, isChosen, () => change({ keywords: isChosen ? others : [...others, keyword] }), { count: files }));
    });
    return [
      element("form", { class: "pair", on: { submit } }, field, element("button", { type: "submit", text: "With" }),
        element("button", { type: "button", text: "Without", on: { click: () => add("noKeywords") } })),
      ...(list.length ? [element("ul", { class: "choices" }, ...list)] : []),
    ];
  },
};
