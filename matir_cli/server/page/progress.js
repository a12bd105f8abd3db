// How far a search is, and what can be done with it.

import * as api from "./api.js";
import { announce, byId, countOf, element, percent, setText } from "./dom.js";

/**
 * Show the line below the filters.
 * @param {{stop: function(), judgeMore: function(), changed: function()}} page `changed` is called when the
 *   least probability is another one
 */
export class ProgressLine {
  constructor(page) {
    [this._section, this._status, this._bar] = [byId("progress"), byId("status"), byId("bar")];
    const button = (text, click) => element("button", { type: "button", text, on: { click } });
    this._stop = button("Stop", page.stop);
    this._more = button("Judge more", page.judgeMore);
    this._slider = element("input", { type: "range", min: 0, max: 100, step: 1, value: 0, "aria-label": "Least probability", on: {
      input: () => {
        this._drawLeast();
        page.changed();
      } } });
    this._count = element("output");
    this._least = element("label", { class: "least" }, element("span", { text: "Likely from" }), this._slider, this._count);
    this._line = element("textarea", { readonly: true, rows: 3, "aria-label": "Command line" });
    this._panel = element("div", { id: "command", popover: "auto", role: "dialog", "aria-label": "Command line" }, this._line,
      button("Copy", () => this._copy()));
    this._command = button("As a command", () => this._showCommand());
    byId("tools").append(this._least, this._stop, this._more, this._command, this._panel);
    this._said = "";
  }

  /** Least probability of a photo that is shown, 0..1. */
  get least() {
    return this._least.hidden ? 0 : Number(this._slider.value) / 100;
  }

  reset() {
    this._slider.value = 0;
    this._said = "";
  }

  hide() {
    this._section.hidden = true;
  }

  /**
   * Show the state of a search.
   * @param {Search} search
   * @param {number} shown number of photos that are shown
   */
  show(search, shown) {
    this.search = search;
    const { state, asked, candidates } = search;
    this._section.hidden = false;
    setText(this._status, sentence(search));
    this._bar.hidden = state !== "judging" && state !== "ranking";
    if (state === "judging" && candidates) this._bar.value = asked / candidates;
    else this._bar.removeAttribute("value");
    const focused = document.activeElement;
    this._stop.hidden = state !== "judging";
    this._more.hidden = !search.canJudgeMore;
    if (focused === this._stop && this._stop.hidden) (this._more.hidden ? this._command : this._more).focus();
    if (focused === this._more && this._more.hidden) (this._stop.hidden ? this._command : this._stop).focus();
    this._command.hidden = state === "failed";
    this._least.hidden = !search.hasVerdicts;
    this._shown = shown;
    this._drawLeast();
    if (state !== this._said && state !== "ranking") {
      announce(state === "judging" ? `${countOf(search.items.size, "photo")} by likeness; the judge is asked.` : sentence(search));
      this._said = state;
    }
  }

  _drawLeast() {
    const text = this.least === 0 ? `all ${this._shown}` : `${percent(this.least)}: ${this._shown}`;
    setText(this._count, text);
    this._slider.setAttribute("aria-valuetext", `${percent(this.least)}, ${countOf(this._shown ?? 0, "photo")}`);
  }

  async _showCommand() {
    const body = { ...this.search.commandBody, ...(this.least > 0 && this.search.judging ? { min_p: this.least } : {}) };
    this._line.value = await api.commandLine(body).catch((error) => error.message);
    this._panel.showPopover();
    const { right, bottom } = this._command.getBoundingClientRect();
    this._panel.style.left = `${Math.max(8, right - this._panel.offsetWidth)}px`;
    this._panel.style.top = `${bottom + 6}px`;
    this._line.select();
    this._line.focus();
  }

  async _copy() {
    this._line.select();
    // Without TLS, pages of other hosts than this machine have no clipboard.
    await navigator.clipboard?.writeText(this._line.value).catch(() => {});
    announce("Copied.");
    this._panel.hidePopover();
    this._command.focus();
    setText(this._command, "Copied");
    setTimeout(() => setText(this._command, "As a command"), 1500);
  }
}

function sentence(search) {
  const { state, waiting, asked, candidates, judged, unlikely, complete, truncated } = search;
  const photos = countOf(search.items.size, "photo");
  const cut = truncated ? " The end of the text was ignored: it is longer than the encoder reads." : "";
  if (state === "failed") return search.items.size ? `${photos}, as far as the search came.` : "";
  if (state === "ranking") return "Looking …";
  if (state === "judging") {
    if (waiting?.ahead) {
      const time = waiting.seconds ? `, about ${Math.ceil(waiting.seconds)} s` : "";
      return `${photos} by likeness. The judge has ${countOf(waiting.ahead, "other search").replace("searchs", "searches")} before this one${time}.`;
    }
    return `${photos} by likeness. Judged ${asked} of ${candidates}.`;
  }
  if (!search.items.size) return "No photo passes the filters.";
  if (!search.judging) return `${photos} by likeness.${cut}`;
  if (!complete) return `Stopped. ${judged} of ${candidates} judged.${cut}`;
  const rest = unlikely ? ` The other ${unlikely} are unlikely to be among the first.` : "";
  return `${judged} of ${candidates} judged.${rest}${cut}`;
}
