// The server's HTTP API: see /api/openapi.json.

/** An answer that is an error; `message` is the server's sentence. */
export class ApiError extends Error {
  constructor(message, status, kind, retrySeconds) {
    super(message);
    Object.assign(this, { status, kind, retrySeconds });
  }
}

/** There is no answer. */
export class Unreachable extends Error {}

async function request(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "X-MaTIR": "1" } };
  if (body === null) options.keepalive = true; // it is sent although the page is left
  if (body) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Unreachable("The server does not answer.");
  }
  if (response.ok) return response;
  const { error, kind } = await response.json().catch(() => ({ error: response.statusText }));
  throw new ApiError(error, response.status, kind, Number(response.headers.get("Retry-After")) || 1);
}

const json = async (path, body) => (await request(path, body)).json();

export const gallery = () => json("/api/gallery");
export const newestPhotos = async (limit) => (await json(`/api/photos?limit=${limit}`)).photos;
export const photo = (id) => json(`/api/photos/${id}`);
export const regions = (id) => json(`/api/photos/${id}/regions`);
export const outlines = async (ids) => (await json(`/api/regions/outlines?ids=${ids.join(",")}`)).outlines;
export const commandLine = async (search) => (await json("/api/commands", search)).command;
export const explanation = async (search, photo) => (await json("/api/explanations", { search, photo })).explanation;
export const startSearch = (search) => json("/api/searches", search);

const SIZES = [160, 320, 640, 1024];

/** Return the address of a photo, at least `pixels` wide or high if the gallery has that much. */
export function imageUrl(id, pixels) {
  return `/api/photos/${id}/image?size=${SIZES.find((size) => size >= pixels) ?? SIZES.at(-1)}`;
}

/** Stop a search after the photo that is being judged. */
export async function stopSearch(search) {
  await request(search.stop, null);
}

/** Return a file of the selected results: its content and its name. */
export async function exportFile(wanted) {
  const response = await request("/api/exports", wanted);
  const name = /filename="([\w.-]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
  return { content: await response.blob(), name: name ?? wanted.form };
}

const EVENTS = ["stage1", "waiting", "verdict", "grounded", "final"];

/**
 * Listen to a search.
 * @param {{events: string}} search
 * @param {Object} handlers one per event, `error` for the error that ends the search, and `broken` for a
 *   connection that ends before it.
 * @returns {function} ends the listening, and so the search
 */
export function listen(search, handlers) {
  const source = new EventSource(search.events);
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      if (name === "final") source.close();
      handlers[name]?.(JSON.parse(event.data));
    });
  }
  // The event "error" of a search has data; that of a connection has none.
  source.addEventListener("error", (event) => {
    source.close();
    if (event.data === undefined) handlers.broken?.();
    else handlers.error?.(JSON.parse(event.data));
  });
  return () => source.close();
}
