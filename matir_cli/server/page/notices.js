// What is wrong, as a sentence with a remedy.

import { ApiError, Unreachable } from "./api.js";
import { byId, element } from "./dom.js";

/**
 * Show a notice in place of an earlier one of the same name.
 * @param {string} name
 * @param {{text: string, command?: string, actions?: [string, function(): void][], urgent?: boolean}} content
 */
export function notify(name, { text, command, actions = [], urgent = false }) {
  const notice = element("div", { class: urgent ? "notice urgent" : "notice", role: urgent ? "alert" : "note", "data-name": name },
    element("p", { text }),
    command ? element("code", { text: command }) : null,
    actions.length ? element("p", { class: "row" }, ...actions.map(([label, click]) =>
      element("button", { type: "button", text: label, on: { click } }))) : null);
  withdraw(name);
  byId("notices").append(notice);
}

/** Take notices away. */
export function withdraw(...names) {
  for (const name of names) byId("notices").querySelector(`[data-name="${name}"]`)?.remove();
}

/** Say what a gallery lacks. */
export function notifyFacts(facts) {
  withdraw("empty", "searchable", "judgeable");
  const database = `--db ${/^[\w./-]+$/.test(facts.path) ? facts.path : "FILE"}`;
  if (!facts.photos) {
    notify("empty", { text: "There is no photo in this gallery yet. Add a folder, then load this page anew:", command: `matir add FOLDER ${database}` });
  } else if (facts.searchable) {
    notify("searchable", { text: `Texts cannot be searched for. ${facts.searchable} You can still open a photo, and click on an object to find it elsewhere.` });
  } else if (facts.judgeable) {
    notify("judgeable", {
      text: `Photos are ranked by likeness alone, without the judge. ${facts.judgeable}`,
      actions: [["All right", () => withdraw("judgeable")]],
    });
  }
}

/**
 * Say why a search or a request failed.
 * @param {Error} error
 * @param {function(): void} retry
 * @returns {?number} seconds after which it is to be tried again by itself
 */
export function notifyError(error, retry) {
  withdraw("error");
  const actions = [["Try again", retry]];
  if (error instanceof Unreachable) {
    notify("error", { urgent: true, actions, text: "The server does not answer. If it has ended, start it again; this page goes on by itself.", command: "matir serve" });
    return 3;
  }
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 429) {
    notify("error", { actions, text: `The server is busy: ${error.message}. It is asked again in ${error.retrySeconds} s.` });
    return error.retrySeconds;
  }
  if (error.status === 401) askForToken(retry);
  else notify("error", { urgent: true, text: error.message });
  return null;
}

function askForToken(retry) {
  const field = element("input", { type: "password", "aria-label": "Token", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    document.cookie = `matir_token=${field.value.trim()}; path=/; SameSite=Strict`;
    withdraw("error");
    retry();
  };
  const text = "This server answers only with the token with which it was started (matir serve --token).";
  const form = element("form", { class: "pair", on: { submit } }, field, element("button", { type: "submit", text: "Use it" }));
  byId("notices").append(element("div", { class: "notice urgent", role: "alert", "data-name": "error" }, element("p", { text }), form));
  field.focus();
}
