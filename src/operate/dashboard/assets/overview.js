// What a person wants to know in five seconds: the verdict of the daemon, in its words, what is wrong and since
// when, and what to do about it.

import { tint, word } from "./destinations.js";
import { Deed } from "./dialogs.js";
import { Ignored, Refused, Setup } from "./setup.js";
import { count, html, many, rate, sentence, since, span, Time } from "./words.js";

/** What came or went so lately is of now. */
const NOW_MS = 5_000;
/** Rates and durations are of the last minute. */
const LATELY_S = 60;

/** What a state means where no concern says it. */
const MEANINGS = {
  ok: "LaunchDarkly has been told, or is being told in time, everything that Segment has sent.",
  "waiting for the first event": "No event from Segment has been accepted yet.",
};
/** Whoever waits may ask whether something is lost. */
const KEEPS = ["held", "behind", "paused", "catching up"];
/** Nothing is taken on purpose, or until something is fixed: no backlog gets smaller. */
const STANDS_STILL = ["held", "paused"];

const waits = (pending) => (pending === 0 ? "no member is waiting" : `${many(pending, "member")} ${pending === 1 ? "waits" : "wait"} for delivery`);

function steps(past) {
  const from = (past.at.at(-1) ?? 0) - LATELY_S;
  return past.at.flatMap((at, index) => (at > from ? [index] : []));
}

/** The sum of a series over the last minute. */
function lately(past, series) {
  return steps(past).reduce((sum, index) => sum + past[series][index], 0);
}

/** Per second over the last minute, or over what there is of it. */
function lateRate(past, series, step) {
  const of = steps(past).length;
  return of === 0 ? null : lately(past, series) / (of * step);
}

/** The card with the verdict. */
export function Verdict({ known, now, onPause, onResume }) {
  const name = known.chosen;
  const status = known.status.destinations[name];
  const state = status?.state;
  return html`
    <section class=${`card verdict ${tint(state)}`} aria-label="State of the destination">
      <div class="verdict-head">
        <p class="eyebrow">${name}</p>
        ${status && (status.paused_since
          ? html`<${Deed} class="primary" onClick=${onResume}>Resume delivery<//>`
          : html`<${Deed} onClick=${onPause}>Pause delivery…<//>`)}
      </div>
      <h1><span class=${`dot ${tint(state)}`}></span>${word(status)}</h1>
      <p class="since muted">${status?.since && html`since <${Time} at=${status.since} /> (${since(status.since, now)})`}
        ${status?.manual && html` · <a href=${status.manual}>what that means</a>`}</p>
      ${!status && html`<p>It is disabled or no longer configured: its rows are kept, and nothing is delivered.</p>`}
      ${MEANINGS[state] && html`<p>${MEANINGS[state]}</p>`}
      ${status?.concerns.length > 0 && html`<${Concerns} concerns=${status.concerns} now=${now} />`}
      ${KEEPS.includes(state) && html`<p>Nothing is lost: events are accepted and kept; ${waits(status.pending)}.</p>`}
      ${status && html`<${Facts} status=${status} startedAt=${known.status.started_at} now=${now} />`}
      ${status && html`<${Ignored} status=${status} />`}
      ${status && !status.setup?.length && html`<${Refused} status=${status} />`}
      ${!STANDS_STILL.includes(state) && html`
        <${Progress} items=${known.progress[name] ?? []} audiences=${known.audiences[name] ?? []} />`}
    </section>
    <${Setup} status=${status} />`;
}

/** Every reason why it is not `ok`, each with what to do. */
function Concerns({ concerns, now }) {
  return html`
    <ul class="concerns">
      ${concerns.map(({ kind, since: from, why, remedy, manual }, index) => html`
        <li key=${`${kind} ${index}`}>
          <p class="what">${sentence(why)}</p>
          ${from && html`<p class="muted small">since <${Time} at=${from} /> (${since(from, now)})</p>`}
          <p class="todo"><b>What to do:</b> ${ended(remedy)}${manual && html` <a href=${manual}>More in the manual</a>`}</p>
        </li>`)}
    </ul>`;
}

/** A remedy may begin with a command: it stays as it is, but for the full stop. */
const ended = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

/** When anything last came and went, and what LaunchDarkly says of its limits: a silent Segment shows here. */
function Facts({ status, startedAt, now }) {
  const { last_event_at: event, last_success_at: success, rate_limits: limits } = status;
  const ago = (time) => (time && now - Date.parse(time) < NOW_MS ? "just now" : time ? `${since(time, now)} ago` : `none since the daemon started ${since(startedAt, now)} ago`);
  const left = Object.entries(limits ?? {}).filter(([, { limit, remaining }]) => limit && remaining !== undefined);
  return html`
    <dl class="facts numbers">
      <dt>Last event</dt><dd>${ago(event)}</dd>
      <dt>Last delivery</dt><dd>${ago(success)}</dd>
      ${left.map(([name, { limit, remaining }]) => html`
        <dt key=${`${name} of`}>Rate limit, ${name}</dt><dd key=${name}>${count(remaining)} of ${count(limit)} left</dd>`)}
    </dl>`;
}

const DEEDS = {
  resync: "Resync", retract: "Retracting all members", retract_stale: "Retracting stale members",
  reenter: "Entering those who left again", reconcile: "Reconciling with a snapshot",
  replay: "Replay of rejected events", drain: "Delivering the backlog",
};

/** Long work, how far it has come, and how long it will take. */
function Progress({ items: all, audiences }) {
  // Of those who wait while nobody is told, a bar would only pretend.
  const items = all.filter((one) => one.kind !== "drain" || one.per_second > 0);
  if (items.length === 0) return null;
  return html`
    <ul class="progress">
      ${items.map(({ kind, audience, done, total, per_second: perSecond, remaining_s: remaining }) => {
        const known = audiences.find((one) => one.audience === audience);
        const what = `${DEEDS[kind] ?? kind}${audience ? ` of ${known?.audience_key ?? audience}` : ""}`;
        return html`
          <li key=${`${kind} ${audience}`}>
            <span>${what}</span>
            <progress max=${Math.max(total, 1)} value=${Math.min(done, total)} aria-label=${what}></progress>
            <span class="muted small">${count(done)} of ${count(total)}${perSecond > 0 ? ` · ${rate(perSecond)} per second` : ""}${
              remaining === null || remaining === undefined ? "" : ` · about ${remaining < 60 ? `${Math.ceil(remaining)} s` : span(remaining * 1000)} left`}</span>
          </li>`;
      })}
    </ul>`;
}

function Tile({ name, value, note, tint }) {
  return html`
    <div class="tile">
      <dt>${name}</dt>
      <dd class=${tint ?? ""}>${value}</dd>
      <dd class="note muted">${note ?? " "}</dd>
    </div>`;
}

/** The numbers beneath it. */
export function Tiles({ known }) {
  const name = known.chosen;
  const status = known.status.destinations[name];
  const counts = known.destinations.find((one) => one.name === name);
  const past = known.histories[name];
  const perSecond = (series) => {
    const found = past ? lateRate(past, series, known.stepSeconds) : null;
    return found === null ? "–" : rate(found);
  };
  const p95 = past?.call_p95_ms.findLast((value) => value !== null);
  const p50 = past?.call_p50_ms.findLast((value) => value !== null);
  const failed = past ? lately(past, "failed_calls") : 0;
  const pending = status?.pending ?? counts?.pending ?? 0;
  return html`
    <dl class="tiles">
      <${Tile} name="Waiting" value=${count(pending)} note=${pending > 0 && status ? `longest ${span(status.oldest_pending_ms)}` : "for delivery"} />
      <${Tile} name="Events in" value=${perSecond("accepted")} note="accepted per second" />
      <${Tile} name="Members out" value=${perSecond("delivered")} note="delivered per second" />
      <${Tile} name="Call time, p95" value=${p95 === undefined ? "–" : span(p95)} tint=${failed > 0 ? "warn" : ""}
        note=${failed > 0 ? `${count(failed)} failed in the last minute` : p50 === undefined ? "no calls yet" : `p50 ${span(p50)}`} />
      <${Tile} name="Memberships" value=${count(counts?.included)} note=${counts ? `in ${many(counts.audiences, "audience")}` : ""} />
      <${Tile} name="Parked" value=${count(counts?.parked)} tint=${counts?.parked > 0 ? "warn" : ""} note="refused members" />
      <${Tile} name="Rejected" value=${count(counts?.rejected)} tint=${counts?.rejected > 0 ? "warn" : ""} note="events kept" />
    </dl>`;
}
