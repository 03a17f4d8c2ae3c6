// What a person wants to know in five seconds: is it flowing, how far behind, what is wrong and since when.

import { Deed } from "./dialogs.js";
import { count, html, many, rate, remedy, sentence, since, span, Time } from "./words.js";

/** What waits for less than this is on its way as it should be. */
const SOON_MS = 5_000;
/** Rates and durations are of the last minute. */
const LATELY_S = 60;

/** Why nothing is taken, by the word of the status. */
const TROUBLES = {
  rate_limited: "LaunchDarkly limits the rate of calls.",
  unavailable: "LaunchDarkly does not answer as it should.",
  conflict: "Something else changes the same segments at the same time.",
};

/** How a destination stands: a colour, a word, and what to say about it. */
export function verdict(status) {
  if (!status) {
    return { tint: "none", word: "Not delivered to", text: "It is disabled or no longer configured: its rows are only kept." };
  }
  const { held, pending, oldest_pending_ms: oldest, last_error: error, last_success_at: success } = status;
  const kept = `Nothing is lost: events are accepted and kept; ${waits(pending)}.`;
  if (status.paused_since) {
    return { tint: "warn", word: "Paused", since: status.paused_since, text: `Somebody has paused the delivery. ${kept}` };
  }
  if (held) {
    const { what, remedy: todo } = remedy(held.why);
    return { tint: "bad", word: "Held", since: held.since, what, todo, held, text: `${kept} cohortd tries again by itself.` };
  }
  if (oldest > SOON_MS && error && (!success || error.at > success)) {
    return { tint: "warn", word: "Retrying", since: status.state === "ok" ? null : status.since, error,
      what: TROUBLES[error.what] ?? "LaunchDarkly does not take calls.", text: `${kept} cohortd tries again by itself.` };
  }
  if (status.state === "catching_up") {
    return { tint: "warn", word: "Catching up", since: status.since, text: `It is delivered, but ${waits(pending)}, the longest for ${span(oldest)}.` };
  }
  if (oldest > SOON_MS) {
    return { tint: "ok", word: "Flowing", text: `${sentence(waits(pending))} The longest has waited ${span(oldest)}.` };
  }
  const text = pending > 0
    ? "LaunchDarkly has been told everything but what came in the last seconds."
    : "LaunchDarkly has been told everything that Segment has sent.";
  return { tint: "ok", word: "Flowing", text };
}

const waits = (pending) => (pending === 0 ? "nobody waits" : `${many(pending, "member")} ${pending === 1 ? "waits" : "wait"} to be told`);

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

/** The colours of several destinations at a glance, and the choice among them. */
export function Destinations({ known, onChoose }) {
  if (known.names.length < 2) return null;
  return html`
    <nav class="destinations" aria-label="Destinations">
      ${known.names.map((name) => {
        const status = known.status.destinations[name];
        const { tint, word } = verdict(status);
        const isChosen = name === known.chosen;
        return html`
          <button key=${name} class="destination" aria-current=${isChosen ? "true" : null} onClick=${() => onChoose(name)}>
            <span class=${`dot ${tint}`}></span>
            <span class="name">${name}</span>
            <span class="muted">${word}${status && status.pending > 0 ? ` · ${many(status.pending, "waits", "wait")}` : ""}</span>
          </button>`;
      })}
    </nav>`;
}

/** The card with the verdict. */
export function Verdict({ known, now, onPause, onResume }) {
  const name = known.chosen;
  const status = known.status.destinations[name];
  const said = verdict(status);
  return html`
    <section class=${`card verdict ${said.tint}`} aria-label="State of the destination">
      <div class="verdict-head">
        <div>
          <p class="eyebrow">${name}</p>
          <h1><span class=${`dot ${said.tint}`}></span>${said.word}
            ${said.since && html`<span class="since">since <${Time} at=${said.since} /> (${since(said.since, now)})</span>`}
          </h1>
        </div>
        ${status && (status.paused_since
          ? html`<${Deed} class="primary" onClick=${onResume}>Resume delivery<//>`
          : html`<${Deed} onClick=${onPause}>Pause delivery…<//>`)}
      </div>
      ${said.what && html`<p class="what">${said.what}</p>`}
      ${said.todo && html`<p class="todo"><b>What to do:</b> ${said.todo} ${newToken(said.held)}</p>`}
      <p>${said.text}</p>
      ${said.error && html`<p class="muted small">Last answer that took nothing: ${said.error.what.replaceAll("_", " ")}${said.error.status ? ` (${said.error.status})` : ""}${
        said.error.cause ? `, ${said.error.cause}` : ""}${said.error.answer_id ? html`, id <code>${said.error.answer_id}</code>` : ""}.</p>`}
      ${said.held && html`
        <p class="muted small">LaunchDarkly answered ${said.held.status}${said.held.answer_id
          ? html`; its support asks for the id <code>${said.held.answer_id}</code>` : ""}.</p>`}
      ${status && html`<${Facts} status=${status} startedAt=${known.status.started_at} now=${now} />`}
      <${Progress} items=${known.progress[name] ?? []} audiences=${known.audiences[name] ?? []} />
    </section>`;
}

/** When anything last came and went, and what LaunchDarkly says of its limits: a silent Segment shows here. */
function Facts({ status, startedAt, now }) {
  const { last_event_at: event, last_success_at: success, rate_limits: limits } = status;
  const ago = (time) => (time && now - Date.parse(time) < SOON_MS ? "just now" : time ? `${since(time, now)} ago` : `none since the start ${since(startedAt, now)} ago`);
  const left = Object.entries(limits ?? {}).filter(([, { limit, remaining }]) => limit && remaining !== undefined);
  return html`
    <ul class="facts-line muted small">
      <li>Last event: <b>${ago(event)}</b></li>
      <li>Last delivery: <b>${ago(success)}</b></li>
      ${left.map(([name, { limit, remaining }]) => html`
        <li key=${name}>Rate limit, ${name}: <b>${count(remaining)}</b> of ${count(limit)} left</li>`)}
    </ul>`;
}

const newToken = ({ status }) => (status === 401 || status === 403 ? "Rights that are given in LaunchDarkly count at once." : "");

const DEEDS = {
  resync: "Resync", retract: "Retracting everybody", retract_stale: "Retracting stale members",
  replay: "Replay of rejected events", drain: "Telling those who wait",
};

/** Long work, how far it has come, and how long it will take. */
function Progress({ items, audiences }) {
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
            <span class="muted small">${count(done)} of ${count(total)}${perSecond > 0 ? ` · ${rate(perSecond)} a second` : ""}${
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
      <${Tile} name="Waiting" value=${count(pending)} note=${pending > 0 && status ? `longest ${span(status.oldest_pending_ms)}` : "to be told"} />
      <${Tile} name="Events in" value=${perSecond("accepted")} note="accepted a second" />
      <${Tile} name="Members out" value=${perSecond("delivered")} note="delivered a second" />
      <${Tile} name="Call time" value=${p95 === undefined ? "–" : span(p95)} tint=${failed > 0 ? "warn" : ""}
        note=${failed > 0 ? `${count(failed)} not taken lately` : p50 === undefined ? "no calls yet" : `half within ${span(p50)}`} />
      <${Tile} name="Memberships" value=${count(counts?.included)} note=${counts ? `in ${many(counts.audiences, "audience")}` : ""} />
      <${Tile} name="Parked" value=${count(counts?.parked)} tint=${counts?.parked > 0 ? "warn" : ""} note="refused members" />
      <${Tile} name="Rejected" value=${count(counts?.rejected)} tint=${counts?.rejected > 0 ? "warn" : ""} note="events kept" />
    </dl>`;
}
