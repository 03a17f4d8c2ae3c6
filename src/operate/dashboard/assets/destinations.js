// All destinations at a glance, the worst first: one line each, the summary, and what the browser's tab shows.

import { html, many, useEffect } from "./words.js";

/** The words of the daemon's verdict, the worst first; whoever is not delivered to has none and comes last. */
const WORST_FIRST = ["held", "behind", "paused", "attention", "catching up", "waiting for the first event", "ok"];
const NEED_YOU = ["held", "behind", "paused", "attention"];
const TINTS = {
  held: "bad", behind: "bad", paused: "warn", attention: "warn", "catching up": "busy", "waiting for the first event": "none", ok: "ok",
};
/** On any colour of a browser's tabs. */
const TAB_COLOURS = { bad: "#d93025", warn: "#d98200", busy: "#3f6fe8", none: "#7a8594", ok: "#1f9d57" };
/** A line goes up at once, and down when it has been better for so long: lines that jump are clicked by mistake. */
const SETTLED_MS = 10_000;

/** The colour of a state. */
export const tint = (state) => TINTS[state] ?? "none";

/** The word of a destination: the daemon's, or that it has none. */
export const word = (status) => status?.state ?? "not delivered";

const rank = (status) => {
  const at = WORST_FIRST.indexOf(status?.state);
  return at < 0 ? WORST_FIRST.length : at;
};

/** Keeps destinations in their order. */
export class Order {
  constructor() {
    this.shown = new Map();
  }

  /** The names, the worst first, then by name. */
  of(names, destinations, now) {
    const shown = new Map(names.map((name) => {
      const is = rank(destinations[name]);
      const was = this.shown.get(name);
      if (was === undefined || is <= was.rank) return [name, { rank: is, betterSince: null }];
      const betterSince = was.betterSince ?? now;
      return [name, now - betterSince < SETTLED_MS ? { rank: was.rank, betterSince } : { rank: is, betterSince: null }];
    }));
    this.shown = shown;
    return [...names].sort((a, b) => shown.get(a).rank - shown.get(b).rank || (a < b ? -1 : 1));
  }
}

/** How many of them need somebody. */
function summary({ destinations, configuration }) {
  return `${ofStates(destinations)}${configuration ? "; configuration refused" : ""}`;
}

function ofStates(destinations) {
  const states = Object.values(destinations).map((status) => status.state);
  const all = states.length;
  const needy = states.filter((state) => NEED_YOU.includes(state)).length;
  if (needy > 0) return all === 1 ? `needs you: ${states[0]}` : `${needy} of ${all} ${needy === 1 ? "needs" : "need"} you`;
  if (all > 0 && states.every((state) => state === "ok")) return all === 1 ? "1 destination, ok" : `${all} destinations, all ok`;
  return "all is well";
}

function worstTint({ destinations, configuration, ready }) {
  const worst = Object.values(destinations).map(rank).reduce((a, b) => Math.min(a, b), WORST_FIRST.length);
  const found = ready ? tint(WORST_FIRST[worst]) : "bad";
  return configuration && found !== "bad" ? "warn" : found;
}

/** The title and the icon of the page say how it stands, also where only its tab can be seen. */
export function useTab(known) {
  const { status, failing, needsToken } = known;
  const isKnown = status && !needsToken;
  const [said, colour] = !isKnown ? ["", null] : failing ? ["cannot reach the daemon", "none"] : [summary(status), worstTint(status)];
  useEffect(() => {
    document.title = said === "" ? "cohortd" : `${said} · cohortd`;
    const icon = document.querySelector("link[rel=icon]");
    const dot = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="13" fill="${TAB_COLOURS[colour]}"/></svg>`;
    icon.href = colour === null ? "/assets/icon.svg" : `data:image/svg+xml,${encodeURIComponent(dot)}`;
  }, [said, colour]);
}

/** The summary, for the head of the page. */
export function Summary({ known }) {
  return html`<p class="summary"><span class=${`dot ${worstTint(known.status)}`}></span>${summary(known.status)}</p>`;
}

/** One line each. */
export function Destinations({ known, onChoose }) {
  if (known.names.length < 2) return null;
  return html`
    <nav class="card destinations" aria-label="Destinations">
      ${known.names.map((name) => {
        const status = known.status.destinations[name];
        return html`
          <button key=${name} class="destination" aria-current=${name === known.chosen ? "true" : null} onClick=${() => onChoose(name)}>
            <span class=${`dot ${tint(status?.state)}`}></span>
            <span class="name">${name}</span>
            <span class="muted state">${word(status)}</span>
            <span class="muted number">${status && status.pending > 0 ? many(status.pending, "waits", "wait") : ""}</span>
          </button>`;
      })}
    </nav>`;
}
