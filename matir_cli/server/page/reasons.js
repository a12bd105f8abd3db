// Why a photo is among the results, in words and figures.

import { countOf, element, percent } from "./dom.js";

/** Return why a photo is among the results: name, sentence, and perhaps a share to draw. */
export function reasons(item) {
  if (item.plain) return [];
  const rows = [];
  if (item.p !== null) rows.push(["Judge", `${percent(item.p)} likely (p ${item.p.toFixed(4)}, margin ${item.margin.toFixed(2)})`, item.p]);
  else rows.push(["Judge", item.failed ? "It could not answer." : "Not asked about this photo."]);
  const place = item.place ? `, place ${item.place}` : "";
  rows.push(["Likeness", `${item.likeness.toFixed(3)}${place}`, Math.max(0, item.likeness)]);
  if (item.copies) rows.push(["Near-copies", `${countOf(item.copies, "photo")} like this one left out`]);
  if (item.box) rows.push(["Box", item.box.map((edge) => Math.round(edge)).join(", ")]);
  rows.push(["Mask", maskText(item)]);
  return rows;
}

function maskText({ grounding, region, iou }) {
  const fit = iou === undefined ? "" : `, IoU ${iou.toFixed(2)}`;
  return {
    matched: `The judge drew the box; region ${region} fits it best${fit}.`,
    refined: "The judge drew the box; no stored region fits it, so the proposer made this mask inside it.",
    unmatched: `The judge drew the box; no stored region fits it, so there is no mask${fit && ` (best${fit})`}.`,
    "no box": "The judge drew no box.",
    unreadable: "The judge's answer has no box that can be read.",
  }[grounding] ?? (region === undefined ? "" : region === 0 ? "The photo as a whole is most like what you look for." : `Region ${region} is most like what you look for.`);
}

const regionText = ({ ordinal, share }) => (ordinal === 0 ? "the whole photo" : `region ${ordinal}, ${percent(share)} of the photo`);

const TERMS = {
  text: ({ text }) => `“${text}”`,
  object: ({ text }) => `The object: “${text}”`,
  denied: ({ text }) => `Not like “${text}”`,
  not: ({ text }) => `Not “${text}”`,
  example: ({ examples }) => (examples.length > 1 ? "The nearest example" : "The example"),
  mean: () => "The mean of the examples",
  unlike: () => "Not like the bad example",
};

const RELATIONS = { and: "with" };

/**
 * Show where the score and the mask of a result come from.
 * @param {Object} explanation as in the output of `matir find --json --explain`
 * @returns {Node[]}
 */
export function explained({ stage1, verdict, boxes }) {
  const { terms, relations, whole_photo: handicap } = stage1;
  const parts = terms.map((term) => ({
    name: TERMS[term.kind](term), value: term.contribution, prompts: term.prompts ?? [],
    note: `cosine ${term.cosine.toFixed(3)}${term.weight === undefined ? "" : `, weight ${term.weight.toFixed(3)}`}`,
  }));
  for (const { object, kind, other, region, placed, contribution } of relations) {
    const where = `${regionText(region)}${kind === "and" || placed ? "" : ", but it lies elsewhere"}`;
    parts.push({ name: `${object} ${RELATIONS[kind] ?? kind} ${other}`, value: contribution, note: where, prompts: [] });
  }
  if (handicap) parts.push({ name: "It is the whole photo", value: handicap, note: "an object is preferred", prompts: [] });
  const most = Math.max(1e-6, ...parts.map(({ value }) => Math.abs(value)));
  return [
    element("h3", { text: "Likeness, part by part" }),
    element("p", { class: "note", text: `Compared with ${regionText(stage1.region)}: the sum is ${stage1.score.toFixed(3)}.` }),
    element("ul", { class: "parts" }, ...parts.map((part) => partItem(part, most))),
    ...(verdict ? [element("h3", { text: "The judge" }), element("p", { text:
      `True ${verdict.z_true.toFixed(2)}, False ${verdict.z_false.toFixed(2)}: ranked by ${verdict.ranked_by.toFixed(2)}.` })] : []),
    ...boxes.flatMap(boxParts),
  ];
}

function partItem({ name, value, note, prompts }, most) {
  const meter = element("span", { class: value < 0 ? "meter less" : "meter", "aria-hidden": "true" });
  meter.style.setProperty("--share", Math.abs(value) / most);
  const sentences = prompts.length ? element("details", {}, element("summary", { text: countOf(prompts.length, "sentence") }),
    element("ul", {}, ...prompts.map(({ text, cosine }) => element("li", {}, element("span", { text }), element("b", { text: cosine.toFixed(3) }))))) : null;
  return element("li", {}, element("span", { text: name }), element("b", { text: `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}` }),
    meter, element("small", { text: note }), sentences);
}

function boxParts({ matches }, index, all) {
  const text = ({ region, iou, chosen }) => `${chosen ? "✓ " : ""}${regionText(region)}: IoU ${iou.toFixed(2)}`;
  return [
    element("h3", { text: all.length > 1 ? `Regions that fit box ${index + 1}` : "Regions that fit the judge's box" }),
    element("ul", { class: "matches" }, ...matches.map((match) => element("li", { text: text(match) }))),
  ];
}
