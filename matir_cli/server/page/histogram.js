// Photos over time, as bars by which a period is chosen.

import { countOf, element } from "./dom.js";

const MOST_BARS = 48;

/** Return the months from the first to the last, or the years if those are too many. */
function periods(months) {
  if (!months.length) return [];
  const counts = new Map(months.map(({ month, photos }) => [month, photos]));
  const all = [];
  const [first, last] = [months[0].month, months.at(-1).month];
  for (let [year, month] = first.split("-").map(Number); all.length < 12 * 400; month++) {
    if (month > 12) [year, month] = [year + 1, 1];
    const name = `${String(year).padStart(4, "0")}-${String(month).padStart(2, "0")}`;
    if (name > last) break;
    all.push({ name, photos: counts.get(name) ?? 0 });
  }
  if (all.length <= MOST_BARS) return all;
  const years = new Map();
  for (const { name, photos } of all) years.set(name.slice(0, 4), (years.get(name.slice(0, 4)) ?? 0) + photos);
  return [...years].map(([name, photos]) => ({ name, photos }));
}

/**
 * Make the histogram. A bar chooses its period; dragging, or Shift with a second one, all between two bars.
 * @param {{month: string, photos: number}[]} months in order
 * @param {{since: string, until: string}} chosen
 * @param {function({since: string, until: string}): void} change
 */
export function histogram(months, { since, until }, change) {
  const bars = periods(months);
  if (!bars.length) return element("p", { class: "note", text: "No photo of this gallery has a date." });
  const most = Math.max(...bars.map(({ photos }) => photos));
  let from = since ? bars.findIndex(({ name }) => name >= since.slice(0, name.length)) : null;
  let dragging = false;

  const isIn = (name) => (!since || name >= since.slice(0, name.length)) && (!until || name <= until.slice(0, name.length));
  const buttons = bars.map(({ name, photos }, index) => {
    const bar = element("button", {
      type: "button", "aria-label": `${name}: ${countOf(photos, "photo")}`, title: `${name}: ${countOf(photos, "photo")}`,
      "aria-pressed": String(Boolean(since || until) && isIn(name)), tabindex: index ? -1 : 0,
      on: {
        pointerdown: (event) => { if (!event.shiftKey) from = index; dragging = true; event.preventDefault(); mark(index); },
        pointerenter: () => dragging && mark(index),
        keydown: (event) => step(event, index),
      },
    });
    bar.style.setProperty("--share", photos / most);
    return bar;
  });

  function mark(to) {
    const [first, last] = [Math.min(from ?? to, to), Math.max(from ?? to, to)];
    buttons.forEach((bar, index) => bar.setAttribute("aria-pressed", String(index >= first && index <= last)));
  }

  function choose(to) {
    const [first, last] = [Math.min(from ?? to, to), Math.max(from ?? to, to)];
    from = first;
    change({ since: bars[first].name, until: bars[last].name });
  }

  function step(event, index) {
    const target = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: bars.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      if (!event.shiftKey) from = index;
      choose(index);
    } else if (target !== undefined && buttons[target]) {
      buttons[index].tabIndex = -1;
      buttons[target].tabIndex = 0;
      buttons[target].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  const chart = element("div", { class: "bars", role: "group", "aria-label": "Photos by date taken" }, ...buttons);
  chart.addEventListener("pointerup", (event) => {
    const index = buttons.indexOf(document.elementFromPoint(event.clientX, event.clientY)?.closest(".bars button"));
    if (dragging && index >= 0) choose(index);
    dragging = false;
  });
  chart.addEventListener("pointerleave", () => {
    if (!dragging) return;
    dragging = false;
    const pressed = buttons.map((bar) => bar.getAttribute("aria-pressed") === "true");
    const last = from === pressed.indexOf(true) ? pressed.lastIndexOf(true) : pressed.indexOf(true);
    choose(last);
  });
  return element("div", { class: "histogram" }, chart,
    element("p", { class: "ends" }, element("span", { text: bars[0].name }), element("span", { text: bars.at(-1).name })));
}
