// Asking the daemon. The token travels in a header and is kept for this tab only.

const KEPT = "cohortd.token";
const TIMEOUT_MS = 10_000;

let aheadMs = 0;

/** The time by the daemon's clock, in milliseconds of the epoch: what it says is by that. */
export const daemonNow = () => Date.now() + aheadMs;

export const token = {
  get: () => sessionStorage.getItem(KEPT),
  set: (value) => sessionStorage.setItem(KEPT, value),
  forget: () => sessionStorage.removeItem(KEPT),
};

/** What the daemon did not do, in its words. `status` 0: it did not answer. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, init = {}) {
  const headers = { ...init.headers };
  const known = token.get();
  if (known) headers.Authorization = `Bearer ${known}`;
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      ...init, headers, cache: "no-store", credentials: "omit", redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    text = await answer.text();
    const ahead = Date.parse(answer.headers.get("Date")) - Date.now();
    // The header has whole seconds: less is no difference.
    if (Math.abs(ahead) > 2000) aheadMs = ahead;
  } catch {
    throw new Problem(0, "The daemon does not answer.");
  }
  const json = parsed(text);
  const kind = answer.headers.get("Content-Type") ?? "";
  if (kind.startsWith("application/problem+json")) throw new Problem(answer.status, json?.detail ?? text);
  return { status: answer.status, json, next: next(answer.headers.get("Link")) };
}

/** The query behind which a list goes on, as its `Link` header says it. */
const next = (link) => /^<\?([^>]*)>; rel="next"$/.exec(link ?? "")?.[1] ?? null;

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Reads a route. */
export async function read(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  return (await part(path, new URLSearchParams(given).toString())).json;
}

/** Reads a list to its end, a part at a time. */
export async function readAll(path) {
  const all = [];
  let query = "";
  while (query !== null) {
    const { json, next: more } = await part(path, query);
    all.push(...json);
    query = more;
  }
  return all;
}

async function part(path, query) {
  const answer = await ask(query === "" ? path : `${path}?${query}`);
  const { status, json } = answer;
  if (status !== 200 || json === null) throw new Problem(status, `The daemon answered ${status}.`);
  return answer;
}

/** Posts a text of JSON as it is; the answer may say no in the words of its route. */
export const postText = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });

/** Makes a change. */
export async function change(path, body = {}) {
  const { status, json } = await postText(path, JSON.stringify(body));
  if (status !== 200) throw new Problem(status, `The daemon answered ${status}.`);
  return json;
}

/** The routes of a destination. */
export const of = (destination, path) =>
  `/api/v1/destinations/${encodeURIComponent(destination)}${path}`;
