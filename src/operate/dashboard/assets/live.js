// What is known of the daemon, asked for again and again: a daemon that restarts is simply asked until it
// answers. A page that nobody looks at asks nothing.

import { Order } from "./destinations.js";
import { Problem, of, read, readAll, token } from "./api.js";

const STATUS_EVERY_MS = 1000;
const COUNTS_EVERY_MS = 2000;
const HISTORY_EVERY_MS = 5000;
/** Seconds of history that are drawn. */
export const HISTORY_S = 3600;
/** The more audiences there are, the less often they are asked for: so many each second. */
const AUDIENCES_A_SECOND = 500;

export class Live {
  constructor(show) {
    this.show = show;
    this.known = {
      status: null, destinations: [], names: [], audiences: {}, progress: {}, histories: {}, chosen: null, power: null,
      stepSeconds: 5, answeredAt: null, failing: null, needsToken: false, tokenRefused: false,
    };
    this.due = { counts: 0, audiences: 0, history: 0 };
    this.order = new Order();
    this.generation = 0;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** Begins, or begins again at once. */
  wake() {
    clearTimeout(this.timer);
    this.generation += 1;
    this.due = { counts: 0, audiences: 0, history: 0 };
    if (!document.hidden) this.look(this.generation);
  }

  choose(destination) {
    if (this.known.chosen === destination) return;
    this.known.chosen = destination;
    this.wake();
  }

  async look(generation) {
    const began = Date.now();
    try {
      await this.ask(began);
      const well = { failing: null, needsToken: false, tokenRefused: false };
      Object.assign(this.known, { answeredAt: Date.now(), ...well });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 401) {
        const tokenRefused = token.get() !== null;
        Object.assign(this.known, { needsToken: true, tokenRefused, failing: null });
      } else {
        const { since } = this.known.failing ?? { since: began };
        this.known.failing = { since, status: problem.status, detail: problem.message };
      }
    }
    // Another look has begun meanwhile: it shows what this one found, and goes on.
    if (generation !== this.generation) return;
    this.show({ ...this.known });
    if (!this.known.needsToken && !document.hidden) {
      this.timer = setTimeout(() => this.look(generation), STATUS_EVERY_MS);
    }
  }

  async ask(now) {
    const known = this.known;
    known.status = await read("/status");
    if (now >= this.due.counts) {
      known.destinations = await readAll("/api/v1/destinations");
      known.power = (await read("/api/v1/access")).power;
      this.due.counts = now + COUNTS_EVERY_MS;
    }
    const names = this.order.of(this.names(), known.status.destinations, now);
    known.names = names;
    // The worst one, unless the address or somebody has chosen; it stays, whichever is the worst one later.
    if (!names.includes(known.chosen)) [known.chosen = null] = names;
    const chosen = known.chosen;
    if (chosen === null) return;
    const kept = known.destinations.some((one) => one.name === chosen);
    if (kept && now >= this.due.audiences) {
      known.audiences[chosen] = await unlessGone(readAll(of(chosen, "/audiences")), []);
      const pause = (known.audiences[chosen].length / AUDIENCES_A_SECOND) * 1000;
      this.due.audiences = now + Math.max(COUNTS_EVERY_MS, pause);
    }
    if (chosen in known.status.destinations) {
      const { items } = await unlessGone(read(of(chosen, "/progress")), { items: [] });
      known.progress[chosen] = items;
    }
    if (now >= this.due.history) {
      await this.history(chosen);
      this.due.history = now + HISTORY_EVERY_MS;
    }
  }

  /** Those that are delivered to, and those whose rows are kept. */
  names() {
    const { status, destinations } = this.known;
    const all = [...Object.keys(status.destinations), ...destinations.map((one) => one.name)];
    return [...new Set(all)];
  }

  /** Asks for what is new, so that a restart of the daemon leaves a gap and not a blank. */
  async history(chosen) {
    const last = () => this.known.histories[chosen]?.at.at(-1) ?? 0;
    const page = await read("/api/v1/history", { destination: chosen, after: last() });
    this.known.stepSeconds = page.step_s;
    const news = page.destinations[chosen];
    if (news === undefined) return;
    // Another look may have been quicker.
    const isNew = news.at.map((at) => at > last());
    const before = this.known.histories[chosen];
    const all = (series) => [...(before?.[series] ?? []), ...news[series].filter((_, index) => isNew[index])];
    const at = all("at");
    const first = at.findIndex((time) => time >= at.at(-1) - HISTORY_S);
    const series = Object.keys(news).filter((name) => name !== "audiences");
    const kept = series.map((name) => [name, all(name).slice(Math.max(first, 0))]);
    this.known.histories[chosen] = { ...Object.fromEntries(kept), audiences: news.audiences };
  }
}

/** A destination may have been dropped since it was listed. */
async function unlessGone(reading, otherwise) {
  try {
    return await reading;
  } catch (problem) {
    if (problem.status === 404) return otherwise;
    throw problem;
  }
}
