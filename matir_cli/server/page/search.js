// One search: stage 1 at once and to a great depth, and beside it a search that asks the judge.

import * as api from "./api.js";
import { asksJudge, searchBody } from "./query.js";

const JUDGED = 50; // photos that the judge shall put in order
const OUTLINED = 40; // results that come with an outline; the grid asks for the others
export const DEEPEST = 1000; // photos that the server ranks at most
const MOST_CANDIDATES = 10000;

export const [FOUND, OPEN, UNLIKELY] = [0, 1, 2]; // groups of photos

const before = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** Orders of photos, as those of `matir find --sort`; ties are broken by likeliness. */
const ORDERS = {
  score: () => 0,
  taken: (a, b) => before(a.taken ?? "~", b.taken ?? "~"), // "~" is after all digits
  path: (a, b) => before(a.path, b.path),
  size: (a, b) => b.share - a.share,
};

/** A photo as the search has found it so far. */
class Item {
  constructor(shown) {
    this.id = shown.photo;
    this.take(shown);
    this.p = this.margin = null;
    this.failed = false;
    this.final = false;
  }

  /** Take over what is known of the photo and its object; a verdict stays. */
  take(shown) {
    const { result } = shown;
    this.path = result.path;
    [this.width, this.height] = [result.width, result.height];
    [this.maskWidth, this.maskHeight] = [shown.mask_width, shown.mask_height];
    [this.taken, this.camera, this.share] = [shown.taken_at, shown.camera, shown.share ?? -1];
    [this.latitude, this.longitude, this.copies] = [result.latitude, result.longitude, result.near_copies];
    [this.rating, this.keywords] = [result.rating, result.keywords];
    [this.region, this.box, this.iou, this.grounding] = [result.region, result.box, result.iou, result.grounding];
    const same = shown.region_id === this.regionId && this.isRegion;
    this.outline = shown.outline ?? (same ? this.outline : undefined);
    this.regionId = shown.region_id;
    this.likeness = result.stage1_score;
    if (result.judged) [this.p, this.margin] = [result.p_true, result.logit_margin];
    if (result.judge_failed) this.failed = true;
  }

  get shape() {
    return this.width / this.height;
  }

  get group() {
    if (this.p === null) return OPEN;
    return this.p >= 0.5 ? FOUND : UNLIKELY;
  }

  /** True if the mask is that of a stored region. */
  get isRegion() {
    return this.grounding === undefined || this.grounding === "matched";
  }

  /** True if the object is the whole photo. */
  get isWhole() {
    return this.region === 0 && this.isRegion;
  }

  /** True if the outline is a region's that has not been fetched yet. */
  get lacksOutline() {
    return this.outline === undefined && this.regionId !== undefined && this.isRegion && !this.isWhole;
  }
}

/** Make an item of a photo that no search has found. */
export function plainItem(photo) {
  const { paths: [path], width, height, latitude, longitude } = photo;
  const result = { path, width, height, latitude, longitude, stage1_score: null };
  const item = new Item({ ...photo, photo: photo.id, result });
  item.plain = true;
  return item;
}

export class Search {
  /**
   * @param {Object} query as in query.js
   * @param {{depth: number, judge: boolean, effort: number}} wanted photos to rank; whether the judge can be
   *   asked; how much it is asked: 0 as `matir find`, 1 all candidates, n all of 2^(n-1) times as many
   * @param {function(Search)} changed called when there is something new
   */
  constructor(query, wanted, changed) {
    Object.assign(this, { query, wanted });
    this.judging = wanted.judge && asksJudge(query);
    this.items = new Map();
    this.state = "ranking"; // then "judging", "over" or "failed"
    this.candidates = this.asked = this.judged = this.unlikely = 0;
    this.fusion = 0; // weight of the likeness beside the judge's margin
    this.complete = true;
    this.truncated = false;
    this.waiting = null;
    this.error = null;
    this.ids = {}; // of the searches on the server
    this._verdicts = new Map(); // those that come before the ranking
    this._changed = changed;
    this._ends = [];
    this._left = false;
  }

  /** Take over the verdicts of an earlier search for the same query, so that nothing jumps. */
  inherit(earlier) {
    for (const [id, item] of earlier.items) this.items.set(id, item);
  }

  /** Settings of the search that asks the judge. */
  get judgedBody() {
    const { effort } = this.wanted;
    const body = { ...searchBody(this.query), limit: JUDGED };
    if (effort > 0) body.certainty = 1;
    if (effort > 1) body.candidates = Math.min(MOST_CANDIDATES, 100 * 2 ** (effort - 1));
    return body;
  }

  /** Settings of the search that a command line shall do. */
  get commandBody() {
    return this.judging ? this.judgedBody : { ...searchBody(this.query), limit: JUDGED, rerank: false };
  }

  async start() {
    const ranked = { ...searchBody(this.query), rerank: false, limit: this.wanted.depth, outlines: OUTLINED };
    try {
      // One after the other: a browser has few connections, and stage 1 shall not wait for the judge's.
      await this._run("ranked", ranked, {
        stage1: ({ results }) => this._rank(results),
        final: ({ truncated }) => this._set({ truncated, state: this.judging ? this.state : "over" }),
      });
      if (this.judging && !this._left) {
        await this._run("judged", { ...this.judgedBody, outlines: 0 }, {
          stage1: ({ candidates, fusion }) =>
            this._set({ state: this.state === "failed" ? "failed" : "judging", candidates, fusion }),
          waiting: (waiting) => this._set({ waiting }),
          verdict: (verdict) => this._judge(verdict),
          grounded: (shown) => this._ground(shown),
          final: (final) => this._end(final),
        });
      }
    } catch (error) {
      this._fail(error);
    }
  }

  /** Return where the score and the mask of a photo come from; null if that is not known. */
  async explain(item) {
    const search = { ...searchBody(this.query), rerank: item.p !== null && this.judging };
    return item.likeness === null ? null : api.explanation(search, item.id).catch(() => null);
  }

  async _run(name, body, handlers) {
    const started = await api.startSearch(body);
    this.ids[name] = started.id;
    if (this._left) return;
    if (name === "judged") this._started = started;
    const broken = () => this._fail(new api.Unreachable("The server does not answer."));
    const error = ({ error: text, kind }) => this._fail(new api.ApiError(text, 400, kind));
    this._ends.push(api.listen(started, { ...handlers, broken, error }));
  }

  /** Stop the judge after the photo that it looks at. */
  async stop() {
    if (this._started) await api.stopSearch(this._started).catch((error) => this._fail(error));
  }

  /** Do not listen any longer; the server ends the search. */
  leave() {
    this._left = true;
    for (const end of this._ends) end();
    if (this.state === "judging" && this._started) api.stopSearch(this._started).catch(() => {});
  }

  /** Judged photos that are likely, those not judged, and unlikely ones; each in the order of the query. */
  ordered(leastP) {
    const items = [...this.items.values()].filter((item) => !item.dropped && (leastP === 0 || item.p >= leastP));
    const compare = ORDERS[this.query.sort];
    const worth = ({ margin, likeness }) => (margin === null ? 0 : margin + this.fusion * likeness);
    const better = (a, b) => worth(b) - worth(a) || b.likeness - a.likeness || a.place - b.place;
    return items.sort((a, b) => a.group - b.group || compare(a, b) || better(a, b));
  }

  get hasVerdicts() {
    return [...this.items.values()].some((item) => item.p !== null);
  }

  /** True if the judge could be asked about more photos. */
  get canJudgeMore() {
    if (this.state !== "over" || !this.judging) return false;
    return !this.complete || this.unlikely > 0 || this.candidates < Math.min(this.items.size, MOST_CANDIDATES);
  }

  _set(values) {
    if (this._left) return;
    Object.assign(this, values);
    this._changed(this);
  }

  _rank(results) {
    results.forEach((shown, index) => {
      const item = this.items.get(shown.photo) ?? new Item(shown);
      item.place = index + 1;
      this.items.set(item.id, item);
    });
    this.ranked = results.length;
    for (const [id, verdict] of this._verdicts) this._give(id, verdict);
    this._set({});
  }

  _judge({ photo, asked, p_true: p, logit_margin: margin, failed, stage1_score: likeness }) {
    const verdict = { p: p ?? null, margin: margin ?? null, failed: failed === true, likeness };
    if (this.ranked === undefined) this._verdicts.set(photo, verdict);
    else this._give(photo, verdict);
    this._set({ asked, waiting: null });
  }

  _give(id, verdict) {
    const item = this.items.get(id);
    if (item) Object.assign(item, verdict);
    else this._add(id, verdict);
  }

  /** Add a photo that the judge has looked at and that was not ranked among those shown. */
  async _add(id, verdict) {
    const photo = await api.photo(id).catch(() => null);
    if (photo === null || this.items.has(id)) return;
    const item = Object.assign(plainItem(photo), verdict, { plain: false, place: this.candidates });
    this.items.set(id, item);
    this._set({});
  }

  _ground(shown) {
    const item = this.items.get(shown.photo);
    if (item) item.take(shown);
    this._set({});
  }

  _end({ candidates, judged, unlikely, complete, truncated, results }) {
    const kept = new Set();
    for (const shown of results) {
      kept.add(shown.photo);
      const item = this.items.get(shown.photo) ?? Object.assign(new Item(shown), { place: candidates });
      item.take(shown);
      this.items.set(item.id, item);
    }
    // The judge points at objects of other sizes than wanted as well.
    const sized = this.query.minSize !== null || this.query.maxSize !== null;
    for (const item of this.items.values()) {
      item.final = kept.has(item.id);
      item.dropped = sized && complete && item.p !== null && !item.final;
    }
    this._set({ candidates, judged, unlikely, complete, truncated, state: "over", waiting: null });
  }

  _fail(error) {
    if (this._left || this.state === "failed") return;
    for (const end of this._ends) end();
    this._set({ state: "failed", error });
  }
}
